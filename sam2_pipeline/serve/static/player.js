// Time: frames that are stepped through, scrubbed and played, with marks along them.
import { h } from "./dom.js";

const RATE = 24;

export class Player {
  /** `onFrame(frame)` shows a frame and may give a promise, which playing waits for. */
  constructor(onFrame) {
    this.onFrame = onFrame;
    this.frames = [0];
    this.place = 0;
    this.button = h("button", { class: "ghost play", title: "Play (space)", "aria-label": "Play", click: () => this.toggle() });
    this.canvas = h("canvas", { class: "timeline", "aria-hidden": "true" });
    this.slider = h("input", { type: "range", min: "0", max: "0", value: "0", "aria-label": "Frame",
      input: () => { this.pause(); this.go(Number(this.slider.value)); } });
    this.label = h("span", { class: "quiet number" });
    this.element = h("div", { class: "player" }, this.button, h("div", { class: "track" }, this.canvas, this.slider), this.label);
    new ResizeObserver(() => this.drawMarks()).observe(this.canvas);
    this.pause();
  }

  get frame() {
    return this.frames[this.place];
  }

  /** `frames`: numbers of the frames there are; `marks(context, width, height)` draws along them. */
  setFrames(frames, marks = () => {}) {
    this.pause();
    this.frames = frames.length ? frames : [0];
    this.marks = marks;
    this.slider.max = String(this.frames.length - 1);
    this.drawMarks();
  }

  drawMarks() {
    const density = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.width = width * density;
    this.canvas.height = height * density;
    const context = this.canvas.getContext("2d");
    context.scale(density, density);
    if (this.marks && width) this.marks(context, width, height);
  }

  go(place) {
    this.place = Math.min(Math.max(place, 0), this.frames.length - 1);
    this.slider.value = String(this.place);
    this.label.textContent = `${this.frame} / ${this.frames[this.frames.length - 1]}`;
    return this.onFrame(this.frame);
  }

  goTo(frame) {
    const place = this.frames.findIndex((one) => one >= frame);
    return this.go(place < 0 ? this.frames.length - 1 : place);
  }

  step(by) {
    this.pause();
    return this.go(this.place + by);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  async play() {
    const turn = (this.playing = Symbol());
    this.button.dataset.playing = "";
    while (this.playing === turn) {
      const due = performance.now() + 1000 / RATE;
      await this.go(this.place + 1 < this.frames.length ? this.place + 1 : 0);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    }
  }

  pause() {
    this.playing = null;
    delete this.button.dataset.playing;
  }
}

export const keysOf = (player) => ({
  " ": () => player.toggle(),
  ArrowLeft: () => player.step(-1),
  ArrowRight: () => player.step(1),
  "Shift+ArrowLeft": () => player.step(-10),
  "Shift+ArrowRight": () => player.step(10),
});
