// What a result is kept as, and which other choices go with that. Without a page: also run by
// node's tests.

const WITH_CRF = ["h264", "h265", "av1", "vp9"];
const OF_ONE_DEPTH = ["prores", "gif", "webp"];  // 10 bits, 8 and 8

// Whether a choice of quality and of bits means anything. A still picture becomes a PNG in any case.
/** @param {string} format @param {boolean} isPicture */
export const goesWith = (format, isPicture) => ({
  format: !isPicture,
  crf: !isPicture && WITH_CRF.includes(format),
  bits: !isPicture && !OF_ONE_DEPTH.includes(format),
});
