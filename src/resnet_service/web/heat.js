// A class activation map as colours on a canvas.

const SIDE = 256;
// From "says nothing" to "speaks for it", dark to light so that it is read without telling hues apart. Red, green, blue.
const COLOURS = [[8, 6, 32], [86, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
// How much of the image each end covers, of 255, before the slider.
const COVERS = [110, 255];

/** Paint `map` (rows of numbers, any range) over the whole canvas, smoothly, from its least value to its greatest. */
export function paint(canvas, map) {
  canvas.width = canvas.height = SIDE;
  const values = map.flat();
  const least = Math.min(...values);
  const range = Math.max(...values) - least || 1;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const value = (at(map, x, y) - least) / range;
      image.data.set(colour(value), 4 * (SIDE * y + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** Interpolate linearly between the centres of the map's cells; beyond the outermost centres, as at them. */
function at(map, x, y) {
  const [top, bottom, down] = neighbours(y, map.length);
  const [left, right, across] = neighbours(x, map[0].length);
  const above = map[top][left] * (1 - across) + map[top][right] * across;
  const below = map[bottom][left] * (1 - across) + map[bottom][right] * across;
  return above * (1 - down) + below * down;
}

function neighbours(position, cells) {
  const place = Math.min(Math.max(((position + 0.5) / SIDE) * cells - 0.5, 0), cells - 1);
  const first = Math.floor(place);
  return [first, Math.min(first + 1, cells - 1), place - first];
}

function colour(value) {
  const place = value * (COLOURS.length - 1);
  const first = Math.min(Math.floor(place), COLOURS.length - 2);
  const mix = (from, to, share) => Math.round(from + (to - from) * share);
  const channels = COLOURS[first].map((from, index) => mix(from, COLOURS[first + 1][index], place - first));
  return [...channels, mix(...COVERS, value)];
}
