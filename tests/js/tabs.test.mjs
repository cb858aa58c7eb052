import assert from "node:assert/strict";
import { test } from "node:test";

import { Tabs } from "../../static/js/tabs.js";

globalThis.addEventListener = () => {};

/** A channel whose messages arrive at once, in all tabs but the sender. */
function channels() {
  const open = new Set();
  globalThis.BroadcastChannel = class {
    constructor() {
      open.add(this);
    }

    postMessage(data) {
      for (const other of open) if (other !== this) other.onmessage?.({ data });
    }
  };
}

function tab(opened, ids) {
  const clashes = [];
  const state = { ids };
  const now = Date.now;
  Date.now = () => opened;
  const tabs = new Tabs("bot:7", { shown: () => state.ids, onClash: () => clashes.push(state.ids[0]) });
  Date.now = now;
  return { tabs, state, clashes };
}

test("tabs need nothing that a page without TLS does not have", () => {
  channels();
  const { crypto } = globalThis;
  Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
  try {
    assert.notEqual(tab(1, [10]).tabs.id, tab(2, [11]).tabs.id);
  } finally {
    Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
  }
});

test("the younger of two tabs with the same item asks for another", () => {
  channels();
  const first = tab(1, [10, 11]);
  const second = tab(2, [10, 11]);
  assert.deepEqual(first.clashes, []);
  assert.deepEqual(second.clashes, [10]);
  assert.deepEqual(second.tabs.elsewhere, [10, 11]);

  second.state.ids = [12, 13];
  second.tabs.tell();
  assert.deepEqual(first.tabs.elsewhere, [12, 13]);
  assert.deepEqual(first.clashes, []);
});

test("an item that stays in two tabs is asked about once", () => {
  channels();
  const first = tab(1, [10]);
  const second = tab(2, [10]);
  second.tabs.tell();
  first.tabs.tell();
  assert.deepEqual(second.clashes, [10]);
});

test("items of a closed tab are free", () => {
  channels();
  const first = tab(1, [10]);
  const second = tab(2, [12]);
  assert.deepEqual(first.tabs.elsewhere, [12]);
  second.tabs.say({ gone: true });
  assert.deepEqual(first.tabs.elsewhere, []);
});

test("a tab that opens meanwhile hears what the others show", () => {
  channels();
  tab(1, [10]);
  tab(2, [20]);
  assert.deepEqual(tab(3, [30]).tabs.elsewhere, [10, 20]);
});
