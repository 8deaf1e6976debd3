// Scoring in a browser, or in Node: an exported model (`energyad export`) with onnxruntime-web. Nothing is sent anywhere.

/** One axis of a resize as a matrix [now][before]: the mean over each new pixel's area, or linear interpolation. */
export function averages(before, now) {
  const rows = [];
  for (let pixel = 0; pixel < now; pixel++) {
    const row = new Float64Array(before);
    if (now <= before) {
      const start = (pixel * before) / now, end = ((pixel + 1) * before) / now;
      for (let old = Math.floor(start); old < Math.min(before, Math.ceil(end)); old++) {
        row[old] = ((Math.min(end, old + 1) - Math.max(start, old)) * now) / before;
      }
    } else {
      const centre = Math.min(before - 1, Math.max(0, ((pixel + 0.5) * before) / now - 0.5));
      const left = Math.floor(centre), right = Math.min(before - 1, left + 1);
      row[left] += 1 - (centre - left);
      row[right] += centre - left;
    }
    rows.push(row);
  }
  return rows;
}

/** RGBA bytes of an image → RGB bytes of the network's size. */
export function resize(image, height, width) {
  const down = averages(image.height, height), across = averages(image.width, width);
  const narrow = new Float64Array(image.height * width * 3);
  for (let y = 0; y < image.height; y++)
    for (let x = 0; x < width; x++)
      for (let old = 0; old < image.width; old++) {
        const weight = across[x][old];
        if (weight === 0) continue;
        for (let c = 0; c < 3; c++)
          narrow[(y * width + x) * 3 + c] += weight * image.data[(y * image.width + old) * 4 + c];
      }
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++)
    for (let at = 0; at < width * 3; at++) {
      let sum = 0;
      for (let old = 0; old < image.height; old++)
        if (down[y][old] !== 0) sum += down[y][old] * narrow[old * width * 3 + at];
      pixels[y * width * 3 + at] = Math.round(sum);
    }
  return pixels;
}

/** Pixels of an image file as they are stored: no colour management, no premultiplied alpha. */
export async function decode(file) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** A model: its graph and what stands in the .onnx.json beside it. */
export async function load(ort, graph, facts) {
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  return { ort, session, facts };
}

/** Score one image: { score, verdict, heatmap, height, width }. */
export async function score(model, image) {
  const [, height, width] = model.facts.input.shape;
  const pixels = new model.ort.Tensor("uint8", resize(image, height, width), [1, height, width, 3]);
  const found = await model.session.run({ pixels });
  const value = found.score.data[0];
  const verdict = value > model.facts.threshold ? "ng" : "ok";
  return { score: value, verdict, heatmap: found.heatmap.data, height, width };
}
