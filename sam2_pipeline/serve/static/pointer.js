// What mouse, pen and finger do on the picture: clicks, boxes, and painting.

/** `edits` says which tool is chosen and takes what was made with it. */
export function listen(stage, edits) {
  const { canvas } = stage;
  let began = null, painted = null;

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 2 || began) return;
    event.preventDefault();
    edits.pause();
    canvas.setPointerCapture(event.pointerId);
    began = { at: stage.place(event), not: event.shiftKey || event.button === 2 || edits.negative(), id: event.pointerId };
    if (edits.tool() === "brush") {
      const [width, height] = stage.size;
      painted = edits.mask()?.slice() || new Uint8Array(width * height);
      paint(began.at, began.at);
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!began || event.pointerId !== began.id) return;
    const at = stage.place(event);
    if (edits.tool() === "box") {
      stage.marks = [...stage.marks.filter((mark) => !mark.rubber), { box: corners(began.at, at), rgb: edits.rgb(), rubber: true }];
      stage.draw();
    } else if (painted) {
      paint(began.last || began.at, at);
      began.last = at;
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!began || event.pointerId !== began.id) return;
    const { at, not } = began, end = stage.place(event), mask = painted;
    began = painted = null;
    if (mask) edits.brushed(mask);
    else if (edits.tool() === "click") edits.point(at, not ? 0 : 1);
    else {
      const box = corners(at, end);
      stage.marks = stage.marks.filter((mark) => !mark.rubber);
      stage.draw();
      if (box[2] - box[0] >= 2 && box[3] - box[1] >= 2) edits.box(box);
    }
  });
  canvas.addEventListener("pointercancel", () => {
    began = painted = null;
    stage.marks = stage.marks.filter((mark) => !mark.rubber);
    stage.draw();
  });

  /** A thick line into the mask, which is shown as it grows. */
  function paint([x0, y0], [x1, y1]) {
    const [width, height] = stage.size, radius = edits.radius() * Math.max(1, Math.min(width, height) / 480), value = began.not ? 0 : 1;
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 2)));
    for (let n = 0; n <= steps; n++) {
      const [cx, cy] = [x0 + ((x1 - x0) * n) / steps, y0 + ((y1 - y0) * n) / steps];
      for (let y = Math.max(0, Math.ceil(cy - radius)); y <= Math.min(height - 1, cy + radius); y++) {
        const half = Math.sqrt(Math.max(0, radius ** 2 - (y - cy) ** 2));
        painted.fill(value, y * width + Math.max(0, Math.ceil(cx - half)), y * width + Math.min(width - 1, Math.floor(cx + half)) + 1);
      }
    }
    const own = { mask: painted, rgb: edits.rgb(), strength: 0.5, own: true };
    stage.setLayers([...stage.layers.filter((layer) => layer.mask !== edits.mask() && !layer.own), own]);
  }
}

const corners = ([x0, y0], [x1, y1]) => [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
