import assert from "node:assert/strict";
import { test } from "node:test";

import { ago, range } from "../../static/js/time.js";

const NOW = Date.parse("2026-12-01T12:00:00Z");
const DAY = 86_400_000;

test("a moment of the last week is relative, an earlier one a date", () => {
  assert.equal(ago(NOW - 8 * 60_000, NOW), "8 minutes ago");
  assert.equal(ago(NOW + 7 * DAY, NOW), "in 7 days");
  assert.equal(ago(NOW - 6 * DAY, NOW), "6 days ago");
  assert.match(ago(NOW - 8 * DAY, NOW), /^2[34] Nov 2026$/);
});

test("a range names its day once", () => {
  const found = range(new Date(NOW), new Date(NOW + 120_000));
  assert.equal(found.match(/2026/g).length, 1);
  assert.match(found, /\d\d:00.\d\d:02$/u);
});
