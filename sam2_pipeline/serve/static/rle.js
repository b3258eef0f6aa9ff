// COCO's compressed run lengths, column by column, to and from masks (Uint8Array, row by row).

/** Run lengths of a compressed string. */
export function runsOf(counts) {
  const runs = [];
  for (let place = 0; place < counts.length;) {
    let value = 0, shift = 0, group;
    do {
      group = counts.charCodeAt(place++) - 48;
      value += (group & 31) * 2 ** shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value -= 2 ** shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** {size: [height, width], counts} to a mask of 0 and 1. */
export function decode({ size: [height, width], counts }) {
  const mask = new Uint8Array(height * width);
  let at = 0, value = 0;
  for (const run of runsOf(counts)) {
    if (value) {
      for (let i = at; i < at + run; i++) mask[(i % height) * width + Math.floor(i / height)] = 1;
    }
    at += run;
    value = 1 - value;
  }
  return mask;
}

/** A mask of 0 and 1 to {size, counts}. */
export function encode(mask, width, height) {
  const runs = [];
  let run = 0, value = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (mask[y * width + x] !== value) {
        runs.push(run);
        run = 0;
        value = 1 - value;
      }
      run++;
    }
  }
  runs.push(run);
  let text = "";
  runs.forEach((one, place) => {
    let delta = place > 2 ? one - runs[place - 2] : one;
    for (let more = true; more;) {
      let group = delta & 31;
      delta >>= 5;
      more = !(delta === (group & 16 ? -1 : 0));
      text += String.fromCharCode(48 + group + (more ? 32 : 0));
    }
  });
  return { size: [height, width], counts: text };
}
