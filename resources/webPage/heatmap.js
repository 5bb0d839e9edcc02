// Drawing a heatmap over a picture.

const FINE = 360; // pixels: longer side of a drawn heatmap
const AGAINST = [111, 66, 193]; // as in style.css
const FOR = [224, 101, 0];

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The slope at a cell with these steps before and after it; flat at peaks, so that nothing overshoots. */
const slope = (before, after) => (before * after > 0 ? (2 * before * after) / (before + after) : 0);

/** A row of numbers read at `positions` (in cells): a monotone cubic (Fritsch and Butland 1984), the ends repeated. */
function resample(row, positions) {
  return positions.map((position) => {
    const i = Math.floor(position);
    const t = position - i;
    const [a, b, c, d] = [i - 1, i, i + 1, i + 2].map((k) => row[clamp(k, 0, row.length - 1)]);
    const [start, end] = [slope(b - a, c - b), slope(c - b, d - c)];
    return b + t * (start + t * (3 * (c - b) - 2 * start - end + t * (start + end - 2 * (c - b))));
  });
}

const transposed = (rows) => rows[0].map((_, i) => rows.map((row) => row[i]));

/** Paint a heatmap over the whole picture: colours say for or against, opacity how much; outside `area` nothing. */
export function paint(canvas, { heatmap, area, width, height }) {
  const scale = FINE / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const within = (n, low, high, cells) =>
    Array.from({ length: n }, (_, i) => (((i + 0.5) / n - low) / (high - low)) * cells - 0.5);
  const across = within(canvas.width, area.left, area.right, heatmap[0].length);
  const down = within(canvas.height, area.top, area.bottom, heatmap.length);
  const columns = transposed(heatmap.map((row) => resample(row, across))).map((column) => resample(column, down));
  const strongest = Math.max(...heatmap.flat().map(Math.abs)) || 1;
  const outside = (position, cells) => position < -0.5 || position > cells - 0.5;

  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let y = 0, at = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++, at += 4) {
      if (outside(across[x], heatmap[0].length) || outside(down[y], heatmap.length)) continue;
      const strength = clamp(columns[x][y] / strongest, -1, 1);
      image.data.set(strength > 0 ? FOR : AGAINST, at);
      image.data[at + 3] = 255 * Math.abs(strength);
    }
  }
  context.putImageData(image, 0, 0);
}
