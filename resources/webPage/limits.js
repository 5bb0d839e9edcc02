// Pictures as the service takes them: as they are, unless over its limits.

import { Problem, inPlainWords } from "./service.js";

/** What to send of a file whose preview is `width` x `height` pixels, or null where the browser cannot show it. */
export async function withinLimits(file, preview, { megabytes, megapixels }) {
  const area = preview ? preview.width * preview.height : 0;
  if (file.size <= megabytes * 1e6 && area <= megapixels * 1e6) return file;
  if (!area) {
    const detail = `It has ${(file.size / 1e6).toFixed(0)} MB; the limit is ${megabytes} MB.`;
    throw new Problem(inPlainWords(413), { status: 413, detail });
  }
  const bitmap = await createImageBitmap(file);
  let smaller;
  for (let aim = Math.min(area, megapixels * 1e6, 12e6); !(smaller?.size <= megabytes * 1e6); aim /= 2) {
    smaller = await scaled(bitmap, Math.min(1, Math.sqrt(aim / area)));
  }
  bitmap.close();
  return smaller;
}

function scaled(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
  canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // what shows through transparent pixels, as in the service
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
}
