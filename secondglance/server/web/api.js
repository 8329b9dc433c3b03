// The HTTP interface. Errors are problem details; a full queue is waited for, a missing key asked for.

import { t } from './i18n.js';
import { toast } from './ui.js';

const MOST_RETRIES = 8;

/** An address of the interface, which lies below the page: a library among several has a folder. */
export const at = (path) => new URL(`.${path}`, location.href).pathname + (path.includes('?') ? path.slice(path.indexOf('?')) : '');

/** An answer that is no success: what is wrong (`detail`) and what to do (`remedy`). */
export class Problem extends Error {
  constructor(status, body = {}) {
    super(body.detail ?? body.title ?? `HTTP ${status}`);
    this.status = status;
    this.detail = this.message;
    this.remedy = body.remedy ?? '';
    this.type = body.type ?? '';
  }
}

let askForKey = async () => false;

/** Registers what asks for a key; it resolves to whether there is one now. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** A response that is a success; retries as the server asks. */
async function send(method, path, { json, body, signal, type, patient = true } = {}) {
  const headers = { Accept: 'application/json, text/event-stream' };
  if (json !== undefined) headers['Content-Type'] = 'application/json';
  else if (type) headers['Content-Type'] = type;
  for (let tries = 0; ; tries += 1) {
    let answer;
    try {
      answer = await fetch(at(path), {
        method, headers, signal, credentials: 'same-origin',
        body: json === undefined ? body : JSON.stringify(json),
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Problem(0, { detail: t('error.offline_hint') });
    }
    if (answer.ok) return answer;
    const problem = new Problem(answer.status, await answer.json().catch(() => ({})));
    if (answer.status === 401 && path !== '/v1/session' && (await askForKey())) continue;
    const after = Number(answer.headers.get('Retry-After'));
    const again = answer.status === 429 || (answer.status === 503 && /not-ready/.test(problem.type));
    if (!patient || !again || !(after > 0) || tries >= MOST_RETRIES) throw problem;
    await wait(after, signal, answer.status === 429 ? 'error.busy_wait' : 'error.loading_wait');
  }
}

/** Waits while a notice counts down. */
async function wait(seconds, signal, key) {
  const note = toast(t(key, { seconds }), { seconds: 0 });
  try {
    for (let left = Math.ceil(seconds); left > 0; left -= 1) {
      note.text(t(key, { seconds: left }));
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
      signal?.throwIfAborted();
    }
  } finally {
    note();
  }
}

/** Calls the interface; JSON comes back, or null where there is nothing. */
export async function call(method, path, options = {}) {
  const answer = await send(method, path, options);
  return answer.status === 204 ? null : answer.json();
}

export const get = (path, options) => call('GET', path, options);
export const post = (path, json, options) => call('POST', path, { json, ...options });

/**
 * Searches with a stream; `on.recall` is called with the first pass, and the final answer returned.
 */
export async function search(asked, { signal, onRecall = () => {} } = {}) {
  const answer = await send('POST', '/v1/search', { json: { ...asked, stream: true }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Problem(0, { detail: t('error.cut_off') });
    held += value;
    for (let end = held.indexOf('\n\n'); end >= 0; end = held.indexOf('\n\n')) {
      const [name, data] = event(held.slice(0, end));
      held = held.slice(end + 2);
      if (name === 'recall') onRecall(data);
      else if (name === 'result') return data;
      else if (name === 'problem') throw new Problem(data.status, data);
    }
  }
}

/** One server-sent event: its name and its JSON. */
function event(block) {
  let name = 'message';
  const data = [];
  for (const line of block.split('\n')) {
    if (line.startsWith('event:')) name = line.slice(6).trim();
    else if (line.startsWith('data:')) data.push(line.slice(5).trim());
  }
  return [name, data.length ? JSON.parse(data.join('\n')) : null];
}

/** Where the small picture of a record is. */
export const thumbnail = (id, size) => at(`/v1/thumbnails/${encodeURIComponent(id)}?size=${size}`);
/** Where the file of a record is. */
export const media = (id) => at(`/v1/media/${encodeURIComponent(id)}`);
/** Where the small picture of an upload is. */
export const preview = (id) => at(`/v1/uploads/${encodeURIComponent(id)}/thumbnail`);
