// Review: a list of masklets by doubt, one of them playing, a key for each verdict.
import { colour, css, get, h, kbd, onKeys, percent, post, toast, trying } from "./dom.js";
import { Player, keysOf } from "./player.js";
import { Stage } from "./stage.js";

const CHUNK = 64;
const PAGE = 200;
const WORDS = { accept: ["A", "Accept", "accepted"], reject: ["R", "Reject", "rejected"], refine: ["F", "Refine", "to refine"] };
const FILTERS = [["none", "To do", "To do"], ["all", "All", "All"], ["accept", "✓", "Accepted"], ["reject", "✕", "Rejected"],
  ["refine", "✎", "To refine"]];

export async function reviewView(place, { info, video, masklet, showKeys }) {
  const wanted = { review: "none", order: "doubt", bucket: "", kind: "", search: "", ...remembered() };
  const stage = new Stage();
  const player = new Player((frame) => showFrame(frame));
  let rows = [], total = 0, at = -1, chunks = new Map(), others = false, opened = null;

  const list = h("ol", { class: "masklets", role: "listbox", "aria-label": "Masklets" });
  const filters = h("div", { class: "segments", role: "group", "aria-label": "Which masklets" });
  const progress = h("div", { class: "progress", title: "reviewed" }, h("i"));
  const title = h("h1", {}, "…");
  const facts = h("div", { class: "facts" });
  const said = h("span", { class: "badge" });
  const verdicts = h("div", { class: "verdicts" }, Object.entries(WORDS).map(([word, [key, name]]) =>
    h("button", { class: `verdict ${word}`, "data-verdict": word, click: () => say(word) }, name, kbd(key))),
    h("button", { class: "ghost undo", click: undo }, "Undo", kbd("U")));
  const choice = (name, label, options) => h("select", { "aria-label": label, name, change: (event) => {
    wanted[name] = event.target.value;
    relist();
  } }, options.map(([value, text]) => h("option", { value, selected: wanted[name] === value }, text)));
  const search = h("input", { type: "search", placeholder: "Video…", "aria-label": "Video", value: wanted.search,
    input: debounced(() => { wanted.search = search.value; relist(); }) });
  place.append(h("div", { class: "review" },
    h("aside", { class: "side" },
      h("div", { class: "filters" }, filters, progress, h("div", { class: "row" }, search,
        choice("order", "Order", [["doubt", "By doubt"], ["video", "By video"], ["size", "By size"]]),
        choice("bucket", "Size", [["", "Any size"], ["small", "Small"], ["medium", "Medium"], ["large", "Large"]]))),
      list),
    h("section", { class: "centre" },
      h("div", { class: "heading" }, title, said, h("span", { class: "spacer" }), facts),
      stage.element, player.element,
      h("footer", { class: "bar" }, verdicts, h("div", { class: "hints quiet" },
        h("span", {}, kbd("J"), kbd("K"), "next, previous"), h("span", {}, kbd("space"), "play"),
        h("span", {}, kbd("D"), "most doubtful frame"), h("span", {}, kbd("O"), "others"))))));
  showKeys([[["A"], "accept"], [["R"], "reject"], [["F"], "mark to be refined"], [["U"], "undo the latest verdict"],
    [["J", "↓"], "next masklet"], [["K", "↑"], "previous masklet"], [["space"], "play or pause"], [["←", "→"], "one frame"],
    [["shift", "←"], "ten frames"], [["D"], "the most doubtful frame"], [["O"], "other masklets of the video, too"],
    [["E"], "correct it in the annotator"], [["N"], "write a note with the next verdict"], [["/"], "search"]]);
  const note = h("input", { class: "note", placeholder: "Note (stored with the verdict)", maxlength: "2000", "aria-label": "Note" });
  verdicts.after(note);

  // ----------------------------------------------------------------------------------------------------------- list

  async function relist(keep = false) {
    remember(wanted);
    await trying(async () => {
      const found = await get("review/masklets", { ...wanted, refresh: !keep, count: PAGE });
      rows = found.rows;
      total = found.total;
      showCounts(found.counts);
      list.replaceChildren(...rows.map(item));
      if (!rows.length) list.append(h("li", { class: "empty" }, wanted.review === "none" && !wanted.search
        ? "Nothing is left to review." : "No masklet fits."));
      const linked = rows.findIndex((row) => row.video_id === video && String(row.masklet_id) === masklet);
      await open(linked >= 0 ? linked : 0);
    });
  }

  async function more() {
    if (rows.length >= total) return;
    // verdicts given meanwhile shift the list: what is here already is not taken twice
    const known = new Set(rows.map(keyOf));
    const start = wanted.review === "all" ? rows.length : rows.filter((row) => (row.review?.verdict || "none") === wanted.review).length;
    const found = await get("review/masklets", { ...wanted, start, count: PAGE });
    const fresh = found.rows.filter((row) => !known.has(keyOf(row)));
    if (!fresh.length) total = rows.length;
    rows.push(...fresh);
    list.append(...fresh.map((row, n) => item(row, rows.length - fresh.length + n)));
  }

  function item(row, n) {
    const dot = h("i", { class: "dot" });
    dot.style.background = css(colour(row.masklet_id));
    const meter = h("i", { class: "doubt", title: `doubt ${percent(row.doubt)}` }, h("b"));
    meter.firstChild.style.width = percent(row.doubt);
    return h("li", { role: "option", "data-key": keyOf(row), class: row.review?.verdict || "", click: () => open(n) },
      dot, h("span", { class: "name" }, h("b", {}, `#${row.masklet_id}`), h("span", {}, row.video_id)),
      h("span", { class: "mark" }, mark(row)), meter);
  }

  function showCounts(counts) {
    filters.replaceChildren(...FILTERS.map(([name, text, title]) => h("button", {
      class: name, title, "aria-label": title, "aria-pressed": String(wanted.review === name), click: () => { wanted.review = name; relist(); },
    }, text, h("span", { class: "count" }, String(counts[name])))));
    progress.firstChild.style.width = percent(counts.all ? (counts.all - counts.none) / counts.all : 0);
  }

  function update(row) {
    const n = rows.findIndex((one) => keyOf(one) === keyOf(row));
    if (n < 0) return -1;
    rows[n] = { ...rows[n], review: row.review };
    const old = list.children[n], fresh = item(rows[n], n);
    if (n === at) fresh.setAttribute("aria-selected", "true");
    old.replaceWith(fresh);
    if (n === at) showSaid();
    return n;
  }

  function showSaid() {
    const review = rows[at]?.review;
    said.className = `badge ${review?.verdict || ""}`;
    said.textContent = review ? `${WORDS[review.verdict][2]} · ${review.author}` : "";
    said.title = review?.note || "";
  }

  // --------------------------------------------------------------------------------------------------- one masklet

  async function open(n) {
    const idle = !rows.length;
    place.firstChild.classList.toggle("idle", idle);
    stage.canvas.hidden = idle;
    for (const button of verdicts.querySelectorAll(".verdict")) button.disabled = idle;
    if (idle) {
      at = -1;
      opened = null;
      player.pause();
      title.textContent = "";
      facts.replaceChildren();
      showSaid();
      stage.say(list.textContent);
      return;
    }
    stage.say("");
    at = Math.min(Math.max(n, 0), rows.length - 1);
    for (const old of list.querySelectorAll("[aria-selected]")) old.removeAttribute("aria-selected");
    list.children[at]?.setAttribute("aria-selected", "true");
    list.children[at]?.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (at > rows.length - 20) trying(more);
    const row = rows[at], turn = (opened = Symbol());
    player.pause();
    title.replaceChildren(`#${row.masklet_id} `, h("small", {}, row.video_id));
    const judged = row.verdict && [row.verdict, ...(row.verdict_reasons || []).map((reason) => reason.replaceAll("_", " "))].join(", ");
    facts.replaceChildren(...[["IoU", percent(row.predicted_iou_mean)], ["stability", percent(row.stability_score_mean)],
      ["at worst", percent(row.stability_score_min)], ["visible", `${row.visible_frame_count}/${row.frame_count}`],
      ["size", row.size_bucket], ...(judged ? [["judge", judged]] : [])].map(([name, value]) => h("span", {}, h("small", {}, name), value)));
    showSaid();
    await trying(async () => {
      const track = await get("review/track", { video: row.video_id, masklet: row.masklet_id });
      if (opened !== turn) return;
      row.track = track;
      chunks = new Map();
      const size = (await masksAt(row, track.frames[0]))?.[row.masklet_id]?.size;
      if (opened !== turn) return;
      if (size) stage.setSize(size[1], size[0]);
      player.setFrames(track.frames, timeline(track, colour(row.masklet_id)));
      player.goTo(row.first_frame_index ?? track.frames[0]);
      player.play();
    });
  }

  /** Masks on a frame, by masklet; fetched some frames at a time. */
  async function masksAt(row, frame) {
    const start = Math.floor(frame / CHUNK) * CHUNK, key = `${start} ${others}`;
    if (!chunks.has(key)) {
      const asked = { video: row.video_id, masklet: row.masklet_id, start, stop: start + CHUNK, others };
      chunks.set(key, get("review/masks", asked).catch((error) => { chunks.delete(key); throw error; }));
      if (chunks.size > 6) chunks.delete(chunks.keys().next().value);
    }
    return (await chunks.get(key)).frames[frame] || {};
  }

  async function showFrame(frame) {
    const row = rows[at], turn = opened;
    if (!row) return;
    await trying(async () => {
      const [masks] = await Promise.all([masksAt(row, frame), stage.show(row.video_id, frame)]);
      if (opened !== turn || player.frame !== frame) return;
      stage.setLayers(Object.entries(masks).map(([id, rle]) => Number(id) === row.masklet_id
        ? { rle, rgb: colour(row.masklet_id) } : { rle, rgb: colour(Number(id)), strength: 0.12, faint: true }));
    });
  }

  // ------------------------------------------------------------------------------------------------------- verdicts

  let queue = Promise.resolve(); // verdicts are sent one after the other, in the order of the keys
  function say(word) {
    const row = rows[at];
    if (!row) return;
    const text = note.value.trim();
    note.value = "";
    flash(word);
    const before = at;
    queue = queue.then(() => trying(async () => {
      const body = { video: row.video_id, masklet: row.masklet_id, verdict: word, note: text || null,
        seen: rows.find((one) => keyOf(one) === keyOf(row))?.review?.verdict_id ?? null };
      const answer = await post("review/verdict", body);
      update(answer);
      showCounts(answer.counts);
      if (answer.replaced) {
        toast(`${answer.replaced.author} had said “${WORDS[answer.replaced.verdict][2]}” meanwhile; yours counts now`);
      }
    }));
    if (before + 1 < rows.length) open(before + 1);
  }

  function undo() {
    queue = queue.then(() => trying(async () => {
      const answer = await post("review/undo", {});
      showCounts(answer.counts);
      const n = update(answer);
      toast(`#${answer.masklet_id} of ${answer.video_id}: verdict taken back`);
      if (n >= 0) await open(n);
    }));
  }

  function flash(word) {
    const button = verdicts.querySelector(`.${word}`);
    button.classList.remove("flash");
    void button.offsetWidth;
    button.classList.add("flash");
  }

  function toDoubtful() {
    const track = rows[at]?.track;
    if (!track) return;
    player.pause();
    const doubt = track.frames.map((_, n) => (track.areas[n] ? (track.stability_score[n] ?? 1) * (track.predicted_iou[n] ?? 1) : 2));
    player.go(doubt.indexOf(Math.min(...doubt)));
  }

  function annotate() {
    const row = rows[at];
    if (row) location.hash = `annotate/${encodeURIComponent(row.video_id)}/${row.masklet_id}`;
  }

  const end = onKeys({
    a: () => say("accept"), r: () => say("reject"), f: () => say("refine"), u: undo,
    j: () => open(at + 1), k: () => open(at - 1), ArrowDown: () => open(at + 1), ArrowUp: () => open(at - 1),
    d: toDoubtful, e: annotate, n: () => note.focus(), "/": () => search.focus(),
    o: () => { others = !others; showFrame(player.frame); },
    ...keysOf(player),
  });
  for (const field of [note, search]) {
    field.addEventListener("keydown", (event) => { if (["Enter", "Escape"].includes(event.key)) field.blur(); });
  }
  if (!info.masklets) {
    const now = await get("info");
    info.masklets = now.masklets;
  }
  if (!info.masklets) {
    end();
    place.replaceChildren(h("div", { class: "nothing" }, h("h1", {}, "No masklets yet"),
      h("p", {}, "Annotate a video and save it; its masklets are reviewed here."), h("a", { href: "#annotate", class: "primary" }, "Annotate")));
    return () => {};
  }
  await relist();
  return () => { player.pause(); end(); };
}

const keyOf = (row) => `${row.masklet_id} ${row.video_id}`;
const mark = (row) => ({ accept: "✓", reject: "✕", refine: "✎" })[row.review?.verdict] || "";

/** Stability along the frames; gaps where the masklet is not visible. */
const timeline = (track, rgb) => (context, width, height) => {
  const step = width / track.frames.length;
  track.frames.forEach((_, n) => {
    if (!track.areas[n]) return;
    const score = Math.max(0.08, Math.min(1, track.stability_score[n] ?? 1));
    context.fillStyle = score < 0.7 ? "#e5484d" : css(rgb, 0.75);
    context.fillRect(n * step, height * (1 - score), Math.max(step - (step > 3 ? 1 : 0), 0.5), height * score);
  });
};

function debounced(action) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(action, 200); };
}

const remembered = () => {
  try { return JSON.parse(sessionStorage.getItem("review") || "{}"); } catch { return {}; }
};
const remember = (wanted) => sessionStorage.setItem("review", JSON.stringify(wanted));
