// The service worker of the annotation page: without a connection it shows the page as it was last,
// and its files, from the cache that the page keeps (desk_cache.js). Everything else is the
// browser's business.
const CACHE = "desk";
const DESK = /^\/projects\/[^/]+\/annotate\/$/;
// what the page itself was served with: a kept page has no headers
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join("; ");

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  if (request.mode === "navigate") {
    if (DESK.test(url.pathname) && !url.search) event.respondWith(page(request, url.pathname));
  } else if (url.pathname.startsWith("/static/")) {
    event.respondWith(file(request));
  }
});

async function page(request, path) {
  try {
    return await fetch(request);
  } catch (error) {
    const found = await (await caches.open(CACHE)).match(path);
    if (!found) throw error;
    const headers = { "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY };
    return new Response(found.body, { headers });
  }
}

async function file(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const found = await (await caches.open(CACHE)).match(request, { ignoreVary: true });
    if (!found) throw error;
    return found;
  }
}
