// Small things that several parts of the page use: words for numbers, keys, the theme.

const bytesWords = (bytes) => {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
};

const timeWords = (seconds) => {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
};

// A press on an arrow goes to the next choice of a group, as radio buttons do.
const segmentKey = (event, group) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const buttons = [...group.querySelectorAll("button:not(:disabled)")];
  const next = buttons[(buttons.indexOf(document.activeElement) + by + buttons.length) % buttons.length];
  next.focus();
  next.click();
};

// Fill a small canvas with the picture, or its first ``width`` pixels.
const cover = (context, picture, width = picture.width) => {
  const { canvas } = context, scale = Math.max(canvas.width / width, canvas.height / picture.height);
  const w = canvas.width / scale, h = canvas.height / scale;
  context.drawImage(picture, (width - w) / 2, (picture.height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
};

// ``share``: 0 to 1, or null while nobody knows.
const fillBar = (bar, share) => {
  bar.classList.toggle("unknown", share === null);
  bar.firstElementChild.style.width = `${100 * (share ?? 0)}%`;
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(100 * share)));
};

const toggleTheme = (after) => {
  const isDark = document.body.classList.toggle("dark");
  localStorage.setItem("dloral-theme", isDark ? "dark" : "light");
  after();
};

const recallTheme = () => {
  const kept = new URLSearchParams(location.search).get("__theme") ?? localStorage.getItem("dloral-theme");
  if (kept === "dark" || kept === "light") document.body.classList.toggle("dark", kept === "dark");
};
