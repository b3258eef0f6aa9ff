// Small helpers: elements, requests, messages.

/** An element: tag, attributes (functions become listeners), children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const kbd = (key) => h("kbd", {}, key);

/** What the server answered that is not 2xx; `state` is how things are now, after a conflict. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.state = body.state;
  }
}

async function answered(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

async function reached(request) {
  try {
    return await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server cannot be reached; is it still running?");
  }
}

export const query = (path, parameters) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `/api/${path}?${new URLSearchParams(given)}`;
};

export const get = async (path, parameters = {}, options = {}) =>
  answered(await reached(fetch(query(path, parameters), options)));

export const post = async (path, body) =>
  answered(await reached(fetch(`/api/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  })));

export function toast(message, kind = "") {
  const place = document.getElementById("toasts");
  const shown = h("div", { class: `toast ${kind}` }, message);
  place.append(shown);
  while (place.children.length > 3) place.firstChild.remove();
  setTimeout(() => shown.remove(), kind === "error" ? 8000 : 3500);
}

/** Runs something and shows what goes wrong. */
export async function trying(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message, "error");
    return undefined;
  }
}

/** Keys for a view; `keys` maps what `event.key` says (with "Shift+" for arrows) to functions. Gives the function that ends it. */
export function onKeys(keys) {
  const listener = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input:not([type=range]), textarea, select")) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : (event.shiftKey ? "Shift+" : "") + event.key;
    const action = keys[name] || keys[event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  };
  document.addEventListener("keydown", listener);
  return () => document.removeEventListener("keydown", listener);
}

/** The same colour for the same number as in `sam2_pipeline.render`. */
export function colour(number) {
  const tones = [[0.75, 1], [0.9, 1], [0.45, 1], [0.85, 0.8]];
  const [saturation, value] = tones[number % 4];
  const hue = (number * 0.6180339887498949) % 1;
  const channel = (n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

export const css = (rgb, alpha = 1) => `rgba(${rgb.join(",")},${alpha})`;
export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)}%`);
