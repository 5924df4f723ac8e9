// Which parts of a frame are still to be restored, once the busiest is.

/** @typedef {{x: number, y: number, width: number, height: number}} Box */

// Boxes of about the first one's size that cover the frame, those near to it first.
/** @param {{width: number, height: number}} full @param {Box} first @param {number} stride @returns {Box[]} */
export const boxesAround = (full, first, stride) => {
  const columns = cuts(full.width, first.width, stride), rows = cuts(full.height, first.height, stride);
  const middle = centre(first), boxes = [];
  for (const [y, height] of rows) for (const [x, width] of columns) boxes.push({ x, y, width, height });
  return boxes
    .filter((box) => !isInside(box, first))
    .sort((a, b) => apart(centre(a), middle) - apart(centre(b), middle));
};

/** @param {Box[]} boxes @param {{x: number, y: number}} point */
export const covers = (boxes, { x, y }) => boxes.some((box) =>
  x >= box.x && y >= box.y && x < box.x + box.width && y < box.y + box.height);

// How much of the frame is in the boxes, 0 to 1; those of one grid and the first, which lies over it.
/** @param {{width: number, height: number}} full @param {Box[]} boxes */
export const share = (full, boxes) => {
  const across = 48, down = 27;
  let inside = 0;
  for (let j = 0; j < down; j += 1) {
    for (let i = 0; i < across; i += 1) {
      if (covers(boxes, { x: (i + 0.5) / across * full.width, y: (j + 0.5) / down * full.height })) inside += 1;
    }
  }
  return inside / (across * down);
};

const cuts = (full, side, stride) => {
  const count = Math.max(1, Math.ceil(full / Math.max(side, stride)));
  const even = Math.ceil(full / count / stride) * stride;
  /** @type {[number, number][]} */
  const found = [];
  for (let at = 0; at < full; at += even) found.push([at, Math.min(even, full - at)]);
  return found;
};

const centre = (box) => ({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
const apart = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
const isInside = (box, outer) => box.x >= outer.x && box.y >= outer.y
  && box.x + box.width <= outer.x + outer.width && box.y + box.height <= outer.y + outer.height;
