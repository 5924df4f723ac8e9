// What the stage shows, preview or result, and going through its frames.

import { check, download, find } from "./dom.js";
import { snapshot } from "./paint.js";
import { clamp } from "./words.js";

export const show = (page, what) => {
  if (what === "result" && find("#shown [data-show=result]").disabled) return;
  page.showing = find(".studio").dataset.showing = what;
  if (what === "result") page.motion.stop();
  check(find("#shown"), find(`#shown [data-show=${what}]`));
  find("#motion").disabled = what !== "preview";
  const isPreview = what === "preview";
  page.viewer.strength = isPreview ? page.steering.strength : 1;
  const isPlayable = !isPreview && Boolean(page.state.result) && !page.state.result.image;
  find("#loop").disabled = !isPlayable;
  find("#play").disabled = !isPlayable && !(isPreview && page.state.clip && !find("#motion").hidden);
  find("#sound").hidden = !isPlayable || !page.state.result.sound;
  page.compare.shown(isPreview);
  if (isPreview) page.preview.say();
  page.player.shown(!isPreview && Boolean(page.state.result));
  page.preview.shown(isPreview);
  if (isPreview && page.state.clip) where(page, page.frame, page.state.clip.frames, page.frame / page.state.clip.fps, 0);
  if (!isPreview && !page.state.result && page.newest) page.viewer.show(page.newest);
};

export const step = (page, by) => {
  if (page.showing === "result") page.player.step(by);
  else if (page.state.clip) seek(page, page.frame + by);
};

export const seek = (page, index) => {
  if (page.showing === "result") { page.player.pause(); page.player.seek(Math.min(index, page.player.times.length - 1)); return; }
  if (!page.state.clip) return;
  page.frame = clamp(index, 0, page.state.clip.frames - 1);
  page.controls.remember();
  page.render();
};

export const toSecond = (page, second) => {
  const { clip, result } = page.state;
  if (page.showing !== "result" || !result) { page.previewAt(second); return; }
  page.player.pause();
  page.player.seek(page.player.indexAt(second - result.start));
};

export const play = (page) => {
  if (page.showing === "result") page.player.toggle();
  else if (page.state.result && !page.state.result.image) { show(page, "result"); page.player.play(); }
  else if (!find("#play").disabled && !find("#motion").disabled) page.motion.toggle();
};

export const playing = (page, isPlaying) => {
  find("#play").classList.toggle("playing", isPlaying);
  find("#play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
};

export const toggleLoop = (page) => {
  const loops = !page.player.video.loop;
  page.player.video.loop = loops;
  find("#loop").setAttribute("aria-pressed", String(loops));
};

export const toggleSound = (page) => {
  const { video } = page.player;
  video.muted = !video.muted;
  find("#sound").setAttribute("aria-pressed", String(!video.muted));
};

export const fullScreen = (page) => {
  if (document.fullscreenElement) document.exitFullscreen();
  else find("#viewer").requestFullscreen?.();
};

export const where = (page, index, count, time = 0, first = 0) => {
  const seek = find("#seek");
  seek.max = String(Math.max(count - 1, 0));
  seek.value = String(index);
  seek.disabled = count < 2;
  seek.setAttribute("aria-valuetext", count ? `frame ${index + 1} of ${count}, ${time.toFixed(1)} seconds` : "");
  find("#where").textContent = count ? `Frame\u00a0${index + 1} of\u00a0${count}\u00a0· ${time.toFixed(2)}\u00a0s` : "";
  for (const name of ["back", "forth"]) find(`#${name}`).disabled = count < 2;
  if (page.state.clip) page.strip.now((index + first) / page.state.clip.fps);
  if (page.showing === "result" && page.state.result) {
    page.curves.at(index);
    page.compare.at(page.state.result.start + time, page.player.isPlaying);
  } else if (page.showing === "preview") page.compare.at(time, false);
};

export const saveFrame = async (page) => {
  if (!page.viewer.source) return;
  const blob = await snapshot(page.viewer), address = URL.createObjectURL(blob);
  const number = page.showing === "result" ? page.player.index : page.frame;
  download(address, `${page.state.clip.name.replace(/\.[^.]*$/, "")}-frame-${number + 1}.png`);
  setTimeout(() => URL.revokeObjectURL(address), 10000);
};

export const openSheet = async (page) => {
  show(page, "preview");
  const seen = page.viewer.source && !page.viewer.fits ? page.viewer.seen() : null;
  try {
    await page.sheet.open(page.frame, page.settings(), seen && { x: seen.x + seen.width / 2, y: seen.y + seen.height / 2 });
  } catch (error) { page.sheet.dialog.close(); page.fail(error); }
};
