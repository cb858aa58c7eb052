import assert from "node:assert/strict";
import { test } from "node:test";

import { csrfToken, Outbox } from "../../static/js/outbox.js";
import { browser } from "./browser.mjs";

const UP = { url: "/votes/1", body: { verdict: "up" } };
const DOWN = { url: "/votes/2", body: { verdict: "down" } };
const OK = { ok: true, status: 200 };

function outbox(place = "desk", person = "7") {
  const refused = [];
  const changes = [];
  const box = new Outbox(place, person, {
    onChange: (changed) => changes.push(changed.size),
    onRefused: (why) => refused.push(why),
  });
  return { box, changes, refused };
}

test("votes are kept in localStorage and survive a reload", () => {
  const { storage } = browser();
  outbox().box.keep(UP);
  assert.deepEqual(JSON.parse(storage.get("outbox:desk:7")), [UP]);

  browser({ storage });
  assert.equal(outbox().box.size, 1);
  assert.equal(outbox("other").box.size, 0);
});

test("votes are sent in order with the CSRF token and then removed", async () => {
  const fake = browser();
  const { box } = outbox();
  box.keep(UP);
  box.keep(DOWN);
  fake.answers.push(OK, OK);
  await box.flush();

  assert.deepEqual(fake.requests.map((request) => request.url), ["/votes/1", "/votes/2"]);
  assert.equal(fake.requests[0].headers["X-CSRFToken"], "abc");
  assert.equal(fake.requests[0].headers["X-Person"], "7");
  assert.equal(String(fake.requests[1].body), "verdict=down");
  assert.equal(box.size, 0);
  assert.equal(box.state, "idle");
  assert.equal(fake.storage.has("outbox:desk:7"), false);
});

test("a failed request keeps the vote and everything after it", async () => {
  const fake = browser();
  const { box } = outbox();
  box.keep(UP);
  box.keep(DOWN);
  await box.flush(); // no answer: the network is down
  assert.deepEqual(box.entries, [UP, DOWN]);
  assert.equal(box.state, "offline");
  assert.equal(fake.requests.length, 1);

  fake.answers.push({ ok: false, status: 503 });
  await box.flush();
  assert.equal(box.size, 2);

  fake.answers.push(OK, OK);
  await box.flush();
  assert.equal(box.size, 0);
});

test("the timer, the online event and the focus event send again", async () => {
  for (const again of ["timer", "online", "focus"]) {
    const fake = browser();
    const { box } = outbox();
    box.keep(UP);
    fake.answers.push(OK);
    await (again === "timer" ? fake.timers[0].callback() : fake.fire(again)[0]);
    await new Promise(setImmediate);
    assert.equal(box.size, 0, again);
  }
});

test("a redirect to the sign-in page keeps the votes", async () => {
  for (const answer of [{ type: "opaqueredirect", status: 0, ok: false }, { status: 403, ok: false }]) {
    const fake = browser();
    const { box } = outbox();
    box.keep(UP);
    fake.answers.push(answer);
    await box.flush();
    assert.equal(box.size, 1);
    assert.equal(box.state, "signed-out");
  }
});

test("a vote in a project that was archived meanwhile is reported and removed", async () => {
  const fake = browser();
  const { box, refused } = outbox();
  box.keep(UP);
  const headers = new Headers({ "HX-Trigger": "{}" });
  fake.answers.push({ ok: false, status: 403, headers, text: async () => "This project is archived." });
  await box.flush();
  assert.equal(box.size, 0);
  assert.deepEqual(refused, ["This project is archived."]);
});

test("votes stay in the browser until the person who gave them is back", async () => {
  const first = browser();
  outbox("desk", "7").box.keep(UP);

  // the next person opens the page on the same computer
  const next = browser({ storage: first.storage });
  const other = outbox("desk", "8").box;
  assert.equal(other.size, 0);
  await other.flush();
  assert.equal(next.requests.length, 0);

  const back = browser({ storage: first.storage });
  const { box } = outbox("desk", "7");
  back.answers.push(OK);
  await box.flush();
  assert.equal(back.requests[0].url, "/votes/1");
  assert.equal(box.size, 0);
});

test("a page that is still open when another person signs in keeps its votes", async () => {
  const fake = browser();
  const { box, refused } = outbox();
  box.keep(UP);
  box.keep(DOWN);
  fake.answers.push({ ok: false, status: 409 });
  await box.flush();
  assert.deepEqual(box.entries, [UP, DOWN]);
  assert.equal(box.state, "other-person");
  assert.equal(refused.length, 0);
  assert.equal(fake.requests.length, 1);
});

test("the rate limit keeps the votes and its message", async () => {
  const fake = browser();
  const { box } = outbox();
  box.keep(UP);
  fake.answers.push({ ok: false, status: 429, text: async () => "x".repeat(400) });
  await box.flush();
  assert.equal(box.size, 1);
  assert.equal(box.state, "resting");
  assert.equal(box.why.length, 300);
});

test("a vote that the server refuses is reported, removed, and the next one is sent", async () => {
  const fake = browser();
  const { box, refused } = outbox();
  box.keep(UP);
  box.keep(DOWN);
  fake.answers.push({ ok: false, status: 422, text: async () => "Unknown reason." }, OK);
  await box.flush();
  assert.deepEqual(refused, ["Unknown reason."]);
  assert.equal(fake.requests.length, 2);
  assert.equal(box.size, 0);
});

test("two calls at the same time send each vote once", async () => {
  const fake = browser();
  const { box } = outbox();
  box.keep(UP);
  fake.answers.push(OK, OK);
  await Promise.all([box.flush(), box.flush()]);
  assert.equal(fake.requests.length, 1);
});

test("without localStorage votes are kept in memory", async () => {
  const fake = browser();
  const broken = () => {
    throw new Error("denied");
  };
  globalThis.localStorage = { getItem: broken, setItem: broken, removeItem: broken };
  const { box } = outbox();
  box.keep(UP);
  assert.equal(box.size, 1);
  fake.answers.push(OK);
  await box.flush();
  assert.equal(box.size, 0);
});

test("a change of the same outbox in another tab updates the page", () => {
  const fake = browser();
  const { changes } = outbox();
  fake.fire("storage", { key: "outbox:desk:8" });
  assert.equal(changes.length, 0);
  fake.fire("storage", { key: "outbox:desk:7" });
  assert.equal(changes.length, 1);
});

test("the CSRF token falls back to the form's when there is no cookie", () => {
  browser({ cookie: "sessionid=1" });
  assert.equal(csrfToken(), "");
  globalThis.document.querySelector = () => ({ value: "form" });
  assert.equal(csrfToken(), "form");
});
