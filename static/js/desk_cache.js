// The cache of the annotation page: what a reload without a connection shows. It goes when somebody
// signs out, as the next person at this computer must not find it.
export const CACHE = "desk";

/** Keep a text under the address of a page, or of a part of it. */
export async function cachePut(path, html) {
  try {
    const kept = await caches.open(CACHE);
    await kept.put(path, new Response(html, { headers: { "Content-Type": "text/html; charset=utf-8" } }));
  } catch {
    // no cache without TLS, or no room: a reload needs a connection
  }
}

/** Return the text that is kept for this address; empty if there is none. */
export async function cached(path) {
  try {
    const found = await (await caches.open(CACHE)).match(path);
    return found ? await found.text() : "";
  } catch {
    return "";
  }
}

/** Keep these files as they are. */
export async function cacheFiles(urls) {
  try {
    await (await caches.open(CACHE)).addAll(urls);
  } catch {
    // as above
  }
}

export async function cacheForget() {
  try {
    await caches.delete(CACHE);
  } catch {
    // there was none
  }
}
