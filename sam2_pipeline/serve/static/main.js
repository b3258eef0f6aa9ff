// Which view is shown, and what both share.
import { get, h, kbd, trying } from "./dom.js";
import { annotateView } from "./annotate.js";
import { reviewView } from "./review.js";

const views = { review: reviewView, annotate: annotateView };
let leave = () => {};
let info = {};

async function show() {
  const [name, video, masklet] = location.hash.slice(1).split("?")[0].split("/").map(decodeURIComponent);
  const chosen = views[name] ? name : info.masklets ? "review" : "annotate";
  leave();
  for (const one of Object.keys(views)) {
    const tab = document.getElementById(`tab-${one}`);
    if (one === chosen) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  const place = document.getElementById("view");
  place.replaceChildren();
  place.dataset.view = chosen;
  leave = (await trying(() => views[chosen](place, { info, video, masklet, showKeys }))) || (() => {});
}

/** The dialog with all keys of the view at hand. */
let shownKeys = [];
function showKeys(keys) {
  shownKeys = keys;
}
function openKeys() {
  const dialog = document.getElementById("keys");
  const rows = shownKeys.map(([keys, what]) => h("tr", {}, h("td", {}, keys.map(kbd)), h("td", {}, what)));
  dialog.replaceChildren(h("h2", {}, "Keys"), h("table", {}, rows),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")));
  dialog.showModal();
}

document.getElementById("help").addEventListener("click", openKeys);
document.addEventListener("keydown", (event) => {
  if (event.key === "?" && !event.target.closest("input, textarea") && !document.querySelector("dialog[open]")) openKeys();
});
window.addEventListener("hashchange", show);

await trying(async () => {
  info = await get("info");
  document.getElementById("title").textContent = info.title;
  document.title = `${info.title} · sam2-pipeline`;
  document.getElementById("author").textContent = info.author;
});
await show();
