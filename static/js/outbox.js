// Votes that the server has not confirmed yet. They are kept in localStorage and sent in order, one
// at a time. The server treats a repeated vote as the same vote, so sending again is safe. On a
// shared computer they stay with the person who gave them: the key names the person, and the server
// refuses them while another person is signed in.
const RETRY = 4000;

export class Outbox {
  constructor(place, person, { onChange, onRefused }) {
    this.key = `outbox:${place}:${person}`;
    this.person = person;
    this.onChange = onChange;
    this.onRefused = onRefused;
    this.state = "idle"; // idle · offline · resting · signed-out · other-person
    this.sending = false;
    addEventListener("online", () => this.flush());
    addEventListener("focus", () => this.flush());
    // another tab may have sent them
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
      // localStorage is disabled: votes are kept until the page is closed
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

  // The server refuses more votes for now; `why` is its message.
  rest(why) {
    this.state = "resting";
    this.why = why.slice(0, 300);
  }

  async flush() {
    if (this.sending || !this.size) return;
    this.sending = true;
    try {
      // another tab may use the same outbox: one sender at a time
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
          headers: {
            "HX-Request": "true",
            "HX-Target": "last",
            "X-CSRFToken": csrfToken(),
            "X-Person": this.person,
          },
          body: new URLSearchParams(entry.body),
        });
      } catch {
        this.state = "offline";
        return;
      }
      // a 403 that says why is of a project that is archived, or of another role
      const expired = answer.status === 403 && !answer.headers.get("HX-Trigger");
      if (answer.type === "opaqueredirect" || expired) {
        this.state = "signed-out";
        return;
      }
      if (answer.status === 409) {
        this.state = "other-person";
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
  // After signing in again in another tab the cookie is newer than the page.
  const cookie = document.cookie.split("; ").find((part) => part.startsWith("csrftoken="));
  return cookie?.slice(10) ?? document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
}
