"""The page's look: calm greys, one colour, the system's own fonts (nothing is fetched)."""

import gradio as gr
from gradio.themes.utils import colors, sizes

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def build_theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue=colors.teal,
        secondary_hue=colors.teal,
        neutral_hue=colors.slate,
        text_size=sizes.text_md,
        spacing_size=sizes.spacing_sm,
        radius_size=sizes.radius_md,
        font=_FONTS,
        font_mono=_MONO,
    )
    return theme.set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0f1318",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#171c23",
        background_fill_secondary="#eef1f4",
        background_fill_secondary_dark="#1d242c",
        border_color_primary="#dce1e7",
        border_color_primary_dark="#2a323c",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171c23",
        block_border_color="#dce1e7",
        block_border_color_dark="#2a323c",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        block_title_text_weight="600",
        block_title_text_size="*text_sm",
        block_info_text_size="*text_xs",
        block_info_text_color="#5b6775",
        block_info_text_color_dark="#94a1b0",
        body_text_color="#1c2430",
        body_text_color_dark="#e4e9ef",
        body_text_color_subdued="#5b6775",
        body_text_color_subdued_dark="#94a1b0",
        input_background_fill="#f1f3f6",
        input_background_fill_dark="#222a33",
        table_even_background_fill_dark="#171c23",
        table_odd_background_fill_dark="#1d242c",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_hover_dark="#11857b",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_primary_shadow="none",
        button_secondary_background_fill="#e7ebf0",
        button_secondary_background_fill_dark="#242c36",
        button_secondary_background_fill_hover="#dce2e9",
        button_secondary_background_fill_hover_dark="#2e3843",
    )
