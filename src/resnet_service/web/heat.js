// Draws a class activation map on a canvas.

const SIDE = 256;
// Red, green, blue from weak to strong evidence; dark to light, so that it can be read without telling hues apart.
const COLOURS = [[8, 6, 32], [86, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
// Opacity of the weakest and of the strongest evidence, of 255, before the slider's.
const COVERS = [110, 255];

/** Paint `map` (rows of numbers) over the whole canvas, interpolated and scaled from its minimum to its maximum. */
export function paint(canvas, map) {
  canvas.width = canvas.height = SIDE;
  const values = map.flat();
  const minimum = Math.min(...values);
  const range = Math.max(...values) - minimum || 1;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const value = (at(map, x, y) - minimum) / range;
      image.data.set(colour(value), 4 * (SIDE * y + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** Interpolate linearly between the centres of the map's cells; beyond the outermost centres, repeat their values. */
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
