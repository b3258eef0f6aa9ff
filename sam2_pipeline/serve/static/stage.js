// The picture: a frame, masks on it, and prompts on top; it fits itself into its place.
import { css, h } from "./dom.js";
import { decode } from "./rle.js";

const CACHE = 48;

export class Stage {
  constructor() {
    this.canvas = h("canvas", { class: "picture", tabindex: "-1" });
    this.element = h("div", { class: "stage" }, this.canvas, h("div", { class: "stage-note", hidden: true }));
    this.note = this.element.lastChild;
    this.context = this.canvas.getContext("2d");
    this.tint = document.createElement("canvas");
    this.frames = new Map();
    this.layers = [];
    this.marks = [];
    this.size = [16, 9];
    this.image = null;
    new ResizeObserver(() => this.fit()).observe(this.element);
  }

  /** Pixels of the video. */
  setSize(width, height) {
    this.size = [width, height];
    this.tint.width = width;
    this.tint.height = height;
    this.fit();
  }

  fit() {
    const [width, height] = this.size;
    const room = this.element.getBoundingClientRect();
    if (!room.width) return;
    const scale = Math.min(room.width / width, room.height / height);
    const density = Math.min(devicePixelRatio || 1, 2);
    this.canvas.style.width = `${Math.floor(width * scale)}px`;
    this.canvas.style.height = `${Math.floor(height * scale)}px`;
    this.canvas.width = Math.floor(width * scale * density);
    this.canvas.height = Math.floor(height * scale * density);
    this.scale = this.canvas.width / width;
    this.draw();
  }

  /** A frame's picture, kept for a while. */
  load(video, frame) {
    const width = Math.min(1600, Math.max(320, Math.ceil(this.canvas.width / 320) * 320));
    const address = `/api/frame?${new URLSearchParams({ video, frame, width })}`;
    if (!this.frames.has(address)) {
      const image = new Image();
      image.src = address;
      this.frames.set(address, image.decode().then(() => image));
      this.frames.get(address).catch(() => this.frames.delete(address));
      if (this.frames.size > CACHE) this.frames.delete(this.frames.keys().next().value);
    }
    return this.frames.get(address);
  }

  /** Shows a frame unless another is asked for meanwhile; null where there is none. */
  async show(video, frame) {
    const turn = (this.turn = Symbol());
    try {
      const image = await this.load(video, frame);
      if (this.turn !== turn) return false;
      this.image = image;
      this.say("");
    } catch {
      if (this.turn !== turn) return false;
      this.image = null;
      this.say("the picture cannot be shown; is the video where it was?");
    }
    this.draw();
    return true;
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  /** Masks: [{rle or mask, rgb, strength, outline}]; small ones lie on large ones. */
  setLayers(layers) {
    this.layers = layers.map((layer) => ({ ...layer, mask: layer.mask || decode(layer.rle) }));
    const [width, height] = this.size;
    const pixels = this.tint.getContext("2d").createImageData(width, height);
    const area = (mask) => mask.reduce((sum, value) => sum + value, 0);
    for (const { mask, rgb, strength = 0.42, faint = false } of [...this.layers].sort((a, b) => area(b.mask) - area(a.mask))) {
      if (mask.length === width * height) paint(pixels.data, mask, width, height, rgb, strength, faint);
    }
    this.tint.getContext("2d").putImageData(pixels, 0, 0);
    this.draw();
  }

  draw() {
    const { context, canvas } = this;
    context.fillStyle = "#808080";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    if (this.image) context.drawImage(this.image, 0, 0, canvas.width, canvas.height);
    if (this.layers.length) context.drawImage(this.tint, 0, 0, canvas.width, canvas.height);
    for (const mark of this.marks) this.drawMark(mark);
  }

  drawMark({ point, label, box, rgb }) {
    const { context, scale } = this;
    const unit = Math.min(devicePixelRatio || 1, 2);
    if (box) {
      context.lineWidth = 2 * unit;
      context.strokeStyle = css(rgb);
      context.setLineDash([6 * unit, 4 * unit]);
      context.strokeRect(box[0] * scale, box[1] * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
      context.setLineDash([]);
    }
    if (point) {
      const [x, y] = [point[0] * scale, point[1] * scale];
      context.beginPath();
      context.arc(x, y, 6.5 * unit, 0, 2 * Math.PI);
      context.fillStyle = label ? "#1f9d55" : "#dc3545";
      context.fill();
      context.lineWidth = 1.75 * unit;
      context.strokeStyle = "#fff";
      context.stroke();
      context.beginPath();
      context.moveTo(x - 3 * unit, y);
      context.lineTo(x + 3 * unit, y);
      if (label) {
        context.moveTo(x, y - 3 * unit);
        context.lineTo(x, y + 3 * unit);
      }
      context.stroke();
    }
  }

  /** Where in the video a pointer is. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const [width, height] = this.size;
    const inside = (value, side) => Math.min(Math.max(value, 0), side - 0.01);
    return [inside(((event.clientX - box.left) / box.width) * width, width),
      inside(((event.clientY - box.top) / box.height) * height, height)].map((value) => Math.round(value * 10) / 10);
  }
}

function paint(data, mask, width, height, rgb, strength, faint) {
  const reach = Math.max(1, Math.round(Math.min(width, height) / 320));
  const alpha = Math.round(strength * 255);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue;
      const edge = x < reach || y < reach || x >= width - reach || y >= height - reach ||
        !mask[i - reach] || !mask[i + reach] || !mask[i - reach * width] || !mask[i + reach * width];
      const at = 4 * i;
      data[at] = rgb[0];
      data[at + 1] = rgb[1];
      data[at + 2] = rgb[2];
      data[at + 3] = edge ? (faint ? 150 : 255) : alpha;
    }
  }
}
