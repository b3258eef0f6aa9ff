// Prompts that the server has not answered yet. The tab remembers them, so that a page that is reloaded meanwhile sends them again.

export class Pending {
  constructor(video) {
    this.place = `pending ${video}`;
    this.prompts = [];
    this.leaving = false; // then an answer that does not come is no answer
    addEventListener("beforeunload", () => { this.leaving = true; });
  }

  /** Those of the page before this one, in order. */
  takeOver() {
    this.prompts = JSON.parse(sessionStorage.getItem(this.place) || "[]");
    return [...this.prompts];
  }

  add(prompt) {
    this.prompts.push(prompt);
    this.keep();
    return prompt;
  }

  /** It is on its way. Sent again on the same version, the server takes it once: the second time it is a conflict. */
  sending(prompt, version, body) {
    prompt.sent = { version, body };
    this.keep();
  }

  done(prompt) {
    if (this.leaving) return;
    this.prompts = this.prompts.filter((one) => one !== prompt);
    this.keep();
  }

  keep() {
    try {
      sessionStorage.setItem(this.place, JSON.stringify(this.prompts));
    } catch {
      // full: very many brushed masks are waiting; they are sent all the same
    }
  }
}
