// Annotate: objects, prompts on frames, masks at once, propagation, saving.
import { Refused, colour, css, get, h, kbd, onKeys, post, query, toast, trying } from "./dom.js";
import { Pending } from "./pending.js";
import { Player, keysOf } from "./player.js";
import { encode } from "./rle.js";
import { Stage } from "./stage.js";
import { listen } from "./pointer.js";

const CHUNK = 32;
const TAB = sessionStorage.tab || (sessionStorage.tab = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()));
const TOOLS = { click: ["1", "Click"], box: ["2", "Box"], brush: ["3", "Brush"] };

export async function annotateView(place, { video: given, masklet, showKeys }) {
  const { videos } = await get("videos");
  const video = videos.some((one) => one.video_id === given) ? given : videos[0].video_id;
  let state = await get("annotate/state", { video });
  let current = state.objects[0]?.id ?? null, tool = "click", negative = false, radius = 10, chunks = new Map(), busy = 0, alive = true;

  const stage = new Stage();
  const player = new Player((frame) => showFrame(frame));
  const objects = h("ul", { class: "objects" });
  const tools = h("div", { class: "tools segments", role: "group", "aria-label": "Tool" },
    Object.entries(TOOLS).map(([name, [key, text]]) => h("button", { "data-tool": name, click: () => choose(name) }, text, kbd(key))));
  const sign = h("button", { class: "sign", click: () => { negative = !negative; showTools(); } });
  const size = h("input", { type: "range", min: "1", max: "60", value: String(radius), "aria-label": "Brush size", class: "size",
    input: () => { radius = Number(size.value); } });
  const run = h("button", { class: "primary", "data-action": "propagate", click: propagate });
  const save = h("button", { "data-action": "save", click: saveAll }, "Save", kbd("S"));
  const status = h("span", { class: "quiet status" });
  const bar = h("div", { class: "progress", hidden: true }, h("i"));
  const exports = h("details", { class: "menu" }, h("summary", {}, "Export"), h("div", {},
    [["prompts", "Prompts (JSON Lines)"], ["coco", "Saved masks (COCO)"], ["sav", "Saved masks (SA-V)"]].map(([format, text]) =>
      h("button", { class: "ghost", click: () => download(format) }, text))));
  const picker = h("select", { "aria-label": "Video", change: () => { location.hash = `annotate/${encodeURIComponent(picker.value)}`; } },
    videos.map((one) => h("option", { value: one.video_id, selected: one.video_id === video }, one.video_id)));
  place.append(h("div", { class: "annotate" },
    h("section", { class: "centre" },
      h("div", { class: "heading" }, videos.length > 1 ? picker : h("h1", {}, video), h("span", { class: "spacer" }), tools, sign, size),
      stage.element, player.element,
      h("footer", { class: "bar hints quiet" }, h("span", {}, kbd("click"), "on the object"),
        h("span", {}, kbd("shift"), kbd("click"), "not the object"), h("span", {}, kbd("U"), "undo"),
        h("span", {}, kbd("N"), "new object"), h("span", {}, kbd("space"), "play"))),
    h("aside", { class: "side" },
      h("div", { class: "row side-head" }, h("h2", {}, "Objects"), h("span", { class: "spacer" }),
        h("button", { class: "ghost", "data-action": "undo", click: undo }, "Undo", kbd("U")),
        h("button", { "data-action": "add", click: addObject }, "New", kbd("N"))),
      objects, h("div", { class: "actions" }, bar, status, h("div", { class: "row" }, run, save, exports)))));
  showKeys([[["click"], "on the object"], [["shift", "click"], "not the object (or the right button)"], [["X"], "turn the sign of clicks round"],
    [["1", "2", "3"], "click, box, brush"], [["[", "]"], "smaller, larger brush"], [["N"], "new object"],
    [["tab"], "next object"], [["backspace"], "take the prompts on this frame back"], [["U"], "undo"], [["P"], "propagate"],
    [["esc"], "stop propagating"], [["S"], "save"], [["space"], "play or pause"], [["←", "→"], "one frame"],
    [["shift", "←"], "ten frames"], [[",", "."], "previous, next frame with a prompt"]]);

  // -------------------------------------------------------------------------------------------------------- editing

  let queue = Promise.resolve(); // edits are sent one after the other, each on the version that the one before made
  const pending = new Pending(video);
  const edit = (path, body, prompt) => {
    const sent = queue.then(async () => {
      busy++;
      showStatus();
      try {
        const { version } = prompt?.sent || state;
        const made = prompt?.sent?.body || (typeof body === "function" ? body() : body);
        if (!made) return null;
        if (prompt) pending.sending(prompt, version, made);
        const answer = await post(`annotate/${path}`, { video, version, tab: TAB, ...made });
        take(answer);
        return answer;
      } catch (error) {
        if (error instanceof Refused && error.status === 409 && error.state?.objects) take(error.state);
        if (!(prompt?.again && error.status === 409)) toast(error.message, "error"); // else it had arrived before the reload
        return null;
      } finally {
        if (prompt) pending.done(prompt);
        busy--;
        showStatus();
      }
    });
    queue = sent;
    return sent;
  };

  function take(fresh) {
    state = fresh;
    if (!state.objects.some((one) => one.id === current)) current = state.objects[0]?.id ?? null;
    chunks = new Map();
    showObjects();
    showStatus();
    player.drawMarks();
    showFrame(player.frame);
  }

  let making = null; // one object, however many clicks wait for it
  async function ensureObject() {
    if (current === null) await (making ||= addObject().finally(() => { making = null; }));
    return current !== null;
  }

  async function addObject() {
    const answer = await edit("add-object", {});
    if (answer) select(answer.object_id);
  }

  const objectOf = (id) => state.objects.find((one) => one.id === id);
  const promptOn = (frame, id = current) => objectOf(id)?.prompts.find((one) => one.frame === frame);

  const point = (at, label) => give({ kind: "point", at, label });
  const box = (corners) => give({ kind: "box", corners });
  const brushed = (mask) => {
    if (mask.some(Boolean)) give({ kind: "brush", mask: encode(mask, ...stage.size) });
    else toast("Nothing is left of the mask; take the prompts back with backspace instead.");
  };

  /** A prompt for the current object on this frame. */
  function give(what) {
    player.pause();
    return send(pending.add({ ...what, object: current, frame: player.frame }));
  }

  async function send(prompt) {
    if (prompt.object === null && !(await ensureObject())) {
      pending.done(prompt);
      return;
    }
    const id = prompt.object ?? current;
    await edit("prompt", () => {
      const made = merged(prompt, id);
      return made && { object_id: id, frame: prompt.frame, ...made };
    }, prompt);
  }

  /** With what is on its frame already: a click adds to the points of the object, a box replaces the box, a mask everything. */
  function merged({ kind, at, label, corners, mask, frame }, id) {
    if (kind === "brush") return { mask };
    const old = promptOn(frame, id);
    const kept = old && !old.mask ? old : { points: [], labels: [], box: null };
    if (kind === "box") return { points: kept.points, labels: kept.labels, box: corners };
    if (!label && !old?.box && !old?.points.length && !objectOf(id)?.tracked) {
      toast("Click on the object first, then on what is not part of it.");
      return null;
    }
    return { points: [...kept.points, at], labels: [...kept.labels, label], box: kept.box };
  }

  /** What the page before this one had not heard of. */
  async function sendAgain() {
    for (const prompt of pending.takeOver()) {
      if (prompt.object !== null && !objectOf(prompt.object)) pending.done(prompt);
      else await send(Object.assign(prompt, { again: true }));
    }
  }

  async function undo() {
    const answer = await edit("undo", {});
    if (!answer) return;
    if (answer.object_id && state.objects.some((one) => one.id === answer.object_id)) select(answer.object_id);
    if (answer.frame !== null) player.goTo(answer.frame);
  }

  const clearFrame = () => promptOn(player.frame) && edit("remove-prompt", { object_id: current, frame: player.frame });

  // ------------------------------------------------------------------------------------------------------- showing

  function select(id) {
    current = id;
    showObjects();
    player.drawMarks();
    showFrame(player.frame);
  }

  function showObjects() {
    objects.replaceChildren(...state.objects.map((one) => {
      const dot = h("i", { class: "dot" });
      dot.style.background = css(colour(one.id));
      const note = !one.prompts.length ? "no prompt" : one.stale ? (one.tracked ? "changed" : "not tracked") : "tracked";
      const name = h("input", { class: "name", value: one.name, maxlength: "100", "aria-label": "Name", focus: () => { if (current !== one.id) select(one.id); },
        change: () => edit("rename-object", { object_id: one.id, name: name.value.trim() || one.name }),
        keydown: (event) => { if (["Enter", "Escape"].includes(event.key)) name.blur(); } });
      return h("li", { "data-object": String(one.id), "aria-current": one.id === current ? "true" : false,
        click: (event) => { if (event.target !== name) select(one.id); } },
        dot, name, h("span", { class: `badge ${one.stale ? "stale" : ""}` }, note),
        h("button", { class: "ghost icon", title: "Remove the object", "aria-label": `Remove ${one.name}`,
          click: (event) => { event.stopPropagation(); edit("remove-object", { object_id: one.id }); } }, "✕"));
    }));
    if (!state.objects.length) objects.append(h("li", { class: "empty" }, "Click on something in the picture."));
  }

  function showTools() {
    for (const button of tools.children) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    sign.replaceChildren(negative ? "− Not the object" : "+ Object", kbd("X"));
    sign.classList.toggle("negative", negative);
    sign.hidden = tool === "box";
    size.hidden = tool !== "brush";
    stage.canvas.dataset.tool = tool;
  }

  function showStatus() {
    const job = state.job, running = job?.state === "running";
    const stale = state.objects.filter((one) => one.stale).length, ready = state.objects.some((one) => one.prompts.length);
    run.replaceChildren(running ? "Stop" : "Propagate", kbd(running ? "esc" : "P"));
    run.disabled = !running && !stale;
    run.classList.toggle("primary", stale > 0 && !running);
    save.disabled = running || stale > 0 || !ready;
    save.classList.toggle("primary", !stale && ready);
    bar.hidden = !running;
    if (running) bar.firstChild.style.width = `${(100 * job.done) / Math.max(job.total, 1)}%`;
    status.textContent = running ? `Frame ${job.done} of ${job.total}` : busy ? (state.model ? "…" : "loading the model …")
      : job?.state === "failed" ? `Failed: ${job.message}` : stale ? `${stale} to propagate` : ready ? "Up to date" : "";
    place.querySelector("[data-action=undo]").disabled = !state.can_undo;
  }

  async function masksAt(frame) {
    const start = Math.floor(frame / CHUNK) * CHUNK, mine = chunks;
    if (!mine.has(start)) {
      mine.set(start, get("annotate/masks", { video, start, stop: start + CHUNK }).catch((error) => { mine.delete(start); throw error; }));
      if (mine.size > 12) mine.delete(mine.keys().next().value);
    }
    return (await mine.get(start)).frames[frame] || {};
  }

  async function showFrame(frame) {
    await trying(async () => {
      const [masks] = await Promise.all([masksAt(frame), stage.show(video, frame)]);
      if (!alive || player.frame !== frame) return;
      stage.marks = state.objects.filter((one) => one.id === current).flatMap((one) => one.prompts.filter((prompt) => prompt.frame === frame)
        .flatMap(({ points, labels, box: corners }) => [...(corners ? [{ box: corners, rgb: colour(one.id) }] : []),
          ...points.map((at, n) => ({ point: at, label: labels[n] }))]));
      stage.setLayers(Object.entries(masks).map(([id, rle]) => ({ rle, id: Number(id), rgb: colour(Number(id)),
        strength: Number(id) === current ? 0.5 : 0.28, faint: Number(id) !== current })));
      stage.element.dataset.shown = String(frame);
    });
  }

  const marks = (context, width, height) => {
    const step = width / state.num_frames, ink = getComputedStyle(place).color;
    for (const one of state.objects) {
      const chosen = one.id === current;
      if (one.tracked) {
        context.fillStyle = css(colour(one.id), (one.stale ? 0.15 : 0.35) * (chosen ? 1 : 0.5));
        context.fillRect(0, height - 6, width, 4);
      }
      for (const { frame } of one.prompts) {
        context.fillStyle = css(colour(one.id), chosen ? 1 : 0.5);
        context.beginPath();
        context.arc((frame + 0.5) * step, height / 2, chosen ? 4.5 : 3, 0, 2 * Math.PI);
        context.fill();
        context.lineWidth = 1;
        context.strokeStyle = ink;
        if (chosen) context.stroke();
      }
    }
  };

  // --------------------------------------------------------------------------------------------- propagating, saving

  async function propagate() {
    await queue;
    if (state.job?.state === "running") return stop();
    await trying(async () => {
      state.job = (await post("annotate/propagate", { video })).job;
      showStatus();
      watch();
    });
  }

  const stop = () => state.job?.state === "running" && trying(async () => take(await post("annotate/cancel", { video })));

  /** Asks how things are: often while something runs, else now and then, since other tabs may edit too. */
  let timer;
  async function watch() {
    clearTimeout(timer);
    if (!alive) return;
    const was = state.job?.state;
    try {
      const now = await get("annotate/progress", { video });
      state.job = now.job;
      if (now.version !== state.version && !busy) {
        take(await get("annotate/state", { video }));
        if (now.tab !== TAB) toast("Changed in another tab; this is how it is now.");
      } else if (was === "running" && now.job?.state !== "running") {
        take(await get("annotate/state", { video }));
        if (now.job?.state === "failed") toast(now.job.message, "error");
      } else if (was === "running") {
        chunks = new Map();
        showFrame(player.frame);
      }
      showStatus();
    } catch (error) {
      if (was === "running") toast(error.message, "error");
    }
    timer = setTimeout(watch, state.job?.state === "running" ? 300 : 2500);
  }

  async function saveAll() {
    await queue;
    await trying(async () => {
      const answer = await post("annotate/save", { video, version: state.version });
      take(answer);
      toast(`${answer.saved} ${answer.saved === 1 ? "masklet" : "masklets"} saved to ${answer.output}`, "good");
    });
  }

  const download = (format) => trying(async () => {
    exports.open = false;
    const response = await fetch(query("annotate/export", { video, format }));
    if (!response.ok) throw new Error((await response.json()).error);
    const name = /filename="(.*)"/.exec(response.headers.get("content-disposition"))[1];
    const link = h("a", { href: URL.createObjectURL(await response.blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // ----------------------------------------------------------------------------------------------------------- keys

  function choose(name) {
    tool = name;
    showTools();
  }
  const nextObject = () => {
    const ids = state.objects.map((one) => one.id);
    if (ids.length) select(ids[(ids.indexOf(current) + 1) % ids.length]);
  };
  const toPrompt = (way) => {
    const frames = state.objects.filter((one) => one.id === current).flatMap((one) => one.prompts.map((prompt) => prompt.frame));
    const ahead = frames.filter((frame) => (frame - player.frame) * way > 0);
    if (ahead.length) player.goTo(way > 0 ? Math.min(...ahead) : Math.max(...ahead));
  };
  const end = onKeys({
    1: () => choose("click"), 2: () => choose("box"), 3: () => choose("brush"), x: () => { negative = !negative; showTools(); },
    "[": () => { size.value = String((radius = Math.max(1, radius - 2))); }, "]": () => { size.value = String((radius = Math.min(60, radius + 2))); },
    n: addObject, u: undo, p: propagate, s: saveAll, Escape: stop, Tab: nextObject, Backspace: clearFrame, Delete: clearFrame,
    ",": () => toPrompt(-1), ".": () => toPrompt(1), ...keysOf(player),
  });
  listen(stage, { tool: () => tool, negative: () => negative, radius: () => radius, rgb: () => colour(current ?? 1),
    mask: () => stage.layers.find((layer) => layer.id === current)?.mask, point, box, brushed, pause: () => player.pause() });
  stage.setSize(state.width, state.height);
  player.setFrames([...Array(state.num_frames).keys()], marks);
  showTools();
  take(state);
  player.go(0);
  await sendAgain();
  if (masklet !== undefined) {
    history.replaceState(null, "", `#annotate/${encodeURIComponent(video)}`);
    const answer = await edit("adopt", { masklet: Number(masklet) });
    if (answer) {
      select(answer.object_id);
      player.goTo(answer.frame);
    }
  }
  watch();
  return () => { alive = false; clearTimeout(timer); player.pause(); end(); };
}
