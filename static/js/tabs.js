// What the person's other tabs show, so that each tab of a desk has items of its own: the server
// leaves out those that `elsewhere` names. Of two tabs with the same item the younger one asks for
// another.
export class Tabs {
  /** `shown` returns the ids of this tab, the one on the screen first. */
  constructor(place, { shown, onClash }) {
    this.shown = shown;
    this.onClash = onClash;
    this.id = String(Math.random()); // crypto.randomUUID needs TLS
    this.opened = Date.now();
    this.others = new Map();
    this.settled = new Set(); // ids that stay in two tabs: there were no others
    this.channel = new BroadcastChannel(`desk:${place}`);
    this.channel.onmessage = ({ data }) => this.hear(data);
    addEventListener("pagehide", () => this.say({ gone: true }));
    addEventListener("pageshow", (event) => event.persisted && this.tell());
    this.tell();
  }

  get elsewhere() {
    return [...new Set([...this.others.values()].flatMap(({ ids }) => ids))].slice(0, 40);
  }

  /** Tell the other tabs what this one shows, after it has changed. */
  tell() {
    this.say({ ids: this.shown() });
    this.settle();
  }

  say(what) {
    this.channel.postMessage({ tab: this.id, opened: this.opened, ...what });
  }

  hear({ tab, opened, ids, gone }) {
    const known = this.others.has(tab);
    if (gone) this.others.delete(tab);
    else this.others.set(tab, { opened, ids });
    if (!gone && !known) this.say({ ids: this.shown() });
    this.settle();
  }

  settle() {
    const [id] = this.shown();
    if (id === undefined || this.settled.has(id)) return;
    const older = [...this.others].some(
      ([tab, { opened, ids }]) => ids[0] === id && (opened < this.opened || (opened === this.opened && tab < this.id)),
    );
    if (!older) return;
    this.settled.add(id);
    this.onClash();
  }
}
