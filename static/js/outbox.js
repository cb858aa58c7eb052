// Verdicts that the server has not confirmed. They are kept in the browser, sent in order and
// one at a time; the server takes the same vote twice as one, so sending again is safe.
const RETRY = 4000;

export class Outbox {
  constructor(key, { onChange, onRefused }) {
    this.key = `outbox:${key}`;
    this.onChange = onChange;
    this.onRefused = onRefused;
    this.state = "idle"; // idle · offline · resting · signed-out
    this.sending = false;
    addEventListener("online", () => this.flush());
    addEventListener("focus", () => this.flush());
    // another tab of the desk may have sent them
    addEventListener("storage", (event) => event.key === this.key && this.onChange(this));
    setInterval(() => this.flush(), RETRY);
  }

  get entries() {
    try {
      return JSON.parse(localStorage.getItem(this.key)) ?? [];
    } catch {
      return this.memory ?? [];
    }
  }

  set entries(list) {
    this.memory = list;
    try {
      if (list.length) localStorage.setItem(this.key, JSON.stringify(list));
      else localStorage.removeItem(this.key);
    } catch {
      // storage is off: they live as long as this page
    }
  }

  get size() {
    return this.entries.length;
  }

  keep(entry, state = "offline") {
    this.entries = [...this.entries, entry];
    this.state = state;
    this.onChange(this);
  }

  // the server takes no more for now, and says why
  rest(why) {
    this.state = "resting";
    this.why = why.slice(0, 300);
  }

  async flush() {
    if (this.sending || !this.size) return;
    this.sending = true;
    try {
      // another tab may share the box: one sender at a time
      if (navigator.locks) await navigator.locks.request(this.key, () => this.sendAll());
      else await this.sendAll();
    } finally {
      this.sending = false;
      this.onChange(this);
    }
  }

  async sendAll() {
    while (this.size) {
      const [entry] = this.entries;
      let answer;
      try {
        answer = await fetch(entry.url, {
          method: "POST",
          redirect: "manual",
          headers: { "HX-Request": "true", "HX-Target": "last", "X-CSRFToken": csrfToken() },
          body: new URLSearchParams(entry.body),
        });
      } catch {
        this.state = "offline";
        return;
      }
      if (answer.type === "opaqueredirect" || answer.status === 403) {
        this.state = "signed-out";
        return;
      }
      if (answer.status >= 500) {
        this.state = "offline";
        return;
      }
      if (answer.status === 429) {
        this.rest(await answer.text());
        return;
      }
      if (!answer.ok) this.onRefused(await answer.text());
      this.entries = this.entries.slice(1);
      this.onChange(this);
    }
    this.state = "idle";
  }
}

export function csrfToken() {
  // the cookie is fresher than the page after signing in again in another tab
  const cookie = document.cookie.split("; ").find((part) => part.startsWith("csrftoken="));
  return cookie?.slice(10) ?? document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
}
