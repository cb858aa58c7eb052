// Items that come next, kept in this browser for the time without a connection: in memory, and in
// its cache for a page that is loaded again (static/js/desk_worker.js).
import { cached, cachePut } from "./desk_cache.js";

/** More are asked for when fewer than this are left. */
const LOW = 25;
/** At the end of a queue few are left all the time: the server is asked once in so many ms. */
const AGAIN = 30_000;

export class Ahead {
  constructor(url, person) {
    this.url = url;
    this.person = person;
    this.items = new Map(); // by id, in order: the HTML of an item and its form
    this.loading = false;
    this.loaded = false; // what an earlier page kept is read before it is replaced
    this.asked = -AGAIN;
  }

  /** Ask the server for the items that this browser does not have, if few are left. */
  async load(gone) {
    const early = performance.now() - this.asked < AGAIN;
    if (this.loading || early || this.left(gone).length >= LOW) return;
    this.loading = true;
    this.asked = performance.now();
    try {
      const answer = await fetch(`${this.url}?have=${[...this.items.keys()].join(",")}`, {
        redirect: "error",
        headers: { "X-Person": this.person },
      });
      if (answer.ok) this.read(await answer.text());
      else if (answer.status < 500) this.read(""); // another person, or another role
    } catch {
      // no connection: what is there already will do
      if (!this.items.size) this.read(await cached(this.url));
    } finally {
      this.loading = false;
      this.loaded = true;
    }
  }

  read(html) {
    const items = new Map();
    for (const template of parsed(html)) {
      const id = Number(template.dataset.aheadItem);
      const text = template.innerHTML.trim() || this.items.get(id);
      if (text) items.set(id, text);
    }
    this.items = items;
  }

  /** Keep the items that are not among `gone` for a page that is loaded again. */
  keep(gone) {
    if (!this.loaded) return;
    const texts = this.left(gone).map((id) => `<template data-ahead-item="${id}">${this.items.get(id)}</template>`);
    cachePut(this.url, texts.join(""));
  }

  left(gone) {
    return [...this.items.keys()].filter((id) => !gone.has(id));
  }

  /** Return the next item that is not among `gone`, as a fragment; null if there is none. */
  next(gone) {
    const [id] = this.left(gone);
    if (id === undefined) return null;
    const holder = document.createElement("template");
    holder.innerHTML = this.items.get(id);
    return holder.content;
  }
}

function parsed(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  return holder.content.querySelectorAll("template[data-ahead-item]");
}
