import assert from "node:assert/strict";
import { test } from "node:test";

import { hotkeys } from "../../static/js/hotkeys.js";
import { browser } from "./browser.mjs";

function press(fake, key, { typing = false, ...more } = {}) {
  const event = {
    key,
    prevented: false,
    preventDefault() {
      this.prevented = true;
    },
    target: { closest: () => (typing ? {} : null) },
    ...more,
  };
  fake.fire("keydown", event);
  return event;
}

function setUp(options) {
  const fake = browser();
  const calls = [];
  hotkeys({ u: () => calls.push("u"), Escape: () => calls.push("esc"), n: () => false }, options);
  return { fake, calls };
}

test("a key calls its action, in upper or lower case, and prevents the default", () => {
  const { fake, calls } = setUp();
  assert.equal(press(fake, "u").prevented, true);
  press(fake, "U");
  press(fake, "Escape");
  assert.deepEqual(calls, ["u", "u", "esc"]);
});

test("an action that returns false leaves the default", () => {
  const { fake } = setUp();
  assert.equal(press(fake, "n").prevented, false);
});

test("an unknown key does nothing", () => {
  const { fake, calls } = setUp();
  assert.equal(press(fake, "q").prevented, false);
  assert.deepEqual(calls, []);
});

for (const [name, event] of Object.entries({
  "in a text field": { typing: true },
  "with Control": { ctrlKey: true },
  "with Command": { metaKey: true },
  "with Alt": { altKey: true },
  "while composing": { isComposing: true },
  "that repeats": { repeat: true },
  "that was handled": { defaultPrevented: true },
})) {
  test(`a key ${name} is ignored`, () => {
    const { fake, calls } = setUp();
    assert.equal(press(fake, "u", event).prevented, false);
    assert.deepEqual(calls, []);
  });
}

test("keys are ignored while a dialog is open or while blocked", () => {
  let blocked = true;
  const { fake, calls } = setUp({ blocked: () => blocked });
  press(fake, "u");
  blocked = false;
  fake.page.dialog = {};
  press(fake, "u");
  assert.deepEqual(calls, []);
  fake.page.dialog = null;
  press(fake, "u");
  assert.deepEqual(calls, ["u"]);
});
