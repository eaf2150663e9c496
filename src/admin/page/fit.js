// Shortens names to the space they have. The end of an address is more significant than its middle, so the middle is
// left out.

const canvas = document.createElement("canvas").getContext("2d");
const known = new Map();
/** Largest number of fitted texts that are cached. */
const KNOWN_MAX = 2_000;

function width(text, font) {
  canvas.font = font;
  return canvas.measureText(text).width;
}

/** Returns the text, or as much of its beginning and end as fits. */
export function fit(text, room, font) {
  return remember(`1 ${room} ${font} ${text}`, () => shorten(text, room, font));
}

/** Returns the text on up to two lines, broken after a character at which addresses may be broken. */
export function fitTwo(text, room, font) {
  return remember(`2 ${room} ${font} ${text}`, () => {
    if (width(text, font) <= room) return [text];
    const breaks = [...text.matchAll(/[\s/:.,_-]+/g)].map((match) => match.index + match[0].length);
    const fitting = breaks.filter((at) => at < text.length && width(text.slice(0, at).trimEnd(), font) <= room);
    const at = fitting.findLast((one) => width(text.slice(one), font) <= room) ?? fitting.at(-1);
    if (at === undefined) return [shorten(text, room, font)];
    return [text.slice(0, at).trimEnd(), shorten(text.slice(at), room, font)];
  });
}

function remember(id, make) {
  if (!known.has(id)) {
    if (known.size >= KNOWN_MAX) known.clear();
    known.set(id, make());
  }
  return known.get(id);
}

function shorten(text, room, font) {
  if (width(text, font) <= room) return text;
  const letters = [...text];
  let [fits, tooMany] = [0, letters.length];
  const cut = (keep) => {
    const tail = Math.floor(keep * 0.45);
    return `${letters.slice(0, keep - tail).join("")}…${tail > 0 ? letters.slice(-tail).join("") : ""}`;
  };
  while (tooMany - fits > 1) {
    const middle = (fits + tooMany) >> 1;
    if (width(cut(middle), font) <= room) fits = middle;
    else tooMany = middle;
  }
  return cut(fits);
}
