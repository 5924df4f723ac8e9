"""Algorithm 1's stages by iteration, and the loss weights between them."""

from dataclasses import replace

from dloral.training.schedule import StageSchedule

SCHEDULE = StageSchedule(
    consistency_steps=5,
    enhancement_steps=3,
    transition_steps=2,
    consistency_weights={"charbonnier": 1.0, "temporal": 2.0},
    enhancement_weights={"charbonnier": 0.5, "feature": 4.0},
)


def test_stages_follow_line_5():
    stages = [SCHEDULE.stage_at(iteration) for iteration in range(1, 17)]
    assert stages == (["consistency"] * 5 + ["enhancement"] * 3) * 2


def test_weights_move_linearly_after_a_switch():
    assert SCHEDULE.weights_at(5) == {"charbonnier": 1.0, "temporal": 2.0, "feature": 0.0}
    assert SCHEDULE.weights_at(6) == {"charbonnier": 1.0, "temporal": 2.0, "feature": 0.0}
    assert SCHEDULE.weights_at(7) == {"charbonnier": 0.75, "temporal": 1.0, "feature": 2.0}
    assert SCHEDULE.weights_at(8) == {"charbonnier": 0.5, "temporal": 0.0, "feature": 4.0}
    assert SCHEDULE.weights_at(10) == {"charbonnier": 0.75, "temporal": 1.0, "feature": 2.0}


def test_the_first_stage_starts_at_its_own_weights():
    assert SCHEDULE.weights_at(1) == {"charbonnier": 1.0, "temporal": 2.0, "feature": 0.0}


def test_one_stage_alone():
    only = StageSchedule(5, 0, 0, {"charbonnier": 1.0}, {})
    assert {only.stage_at(iteration) for iteration in range(1, 20)} == {"consistency"}
    assert only.weights_at(17) == {"charbonnier": 1.0}


def test_the_first_weights_are_a_consistency_stage_s():
    schedule = replace(SCHEDULE, first_weights={"charbonnier": 9.0}, transition_steps=0)
    weights = [schedule.weights_at(i)["charbonnier"] for i in (1, 5, 6, 9)]
    assert weights == [9.0, 9.0, 0.5, 1.0]
    left_out = replace(schedule, consistency_steps=0)
    assert left_out.weights_at(1) == left_out.weights_at(9)
    assert left_out.weights_at(1)["charbonnier"] == 0.5
    assert left_out.weights_at(1)["feature"] == 4.0
