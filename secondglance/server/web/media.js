// Pictures and clips that the user brings: from a drop, the clipboard or a file dialog.

import { call, preview as previewOf, Problem } from './api.js';
import { t } from './i18n.js';
import { clock, h, icon, toast } from './ui.js';

const LONGEST_S = 30;

/** The pictures and clips among the files of a drop or a paste. */
export function mediaFiles(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.filter((file) => /^(image|video)\//.test(file.type));
}

/** Whether something that is dragged holds files. */
export const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');

/**
 * Uploads a file. Returns `{reference, kind, preview, name}`; `preview` is the address of a small
 * picture.
 */
export async function upload(file) {
  const isVideo = file.type.startsWith('video/');
  if (isVideo) {
    const seconds = await length(file);
    if (seconds > LONGEST_S + 0.5) {
      throw new Problem(413, { detail: t('error.long_clip', { name: file.name, length: clock(seconds), most: LONGEST_S }) });
    }
  }
  const found = await call('POST', '/v1/uploads', { body: file, type: file.type || 'application/octet-stream' });
  return {
    reference: found.reference,
    kind: found.kind,
    name: file.name,
    preview: previewOf(found.id),
    seconds: found.duration_s ?? null,
  };
}

/** Uploads several files, says which could not be, and returns the others. */
export async function uploadAll(files) {
  const found = [];
  for (const file of files) {
    try {
      found.push(await upload(file));
    } catch (error) {
      toast(`${file.name}: ${error.detail ?? error.message} ${error.remedy ?? ''}`, { kind: 'bad', seconds: 10 });
    }
  }
  return found;
}

/** Seconds of a clip, or 0 where the browser cannot tell; then the server does. */
function length(file) {
  return new Promise((resolve) => {
    const url = URL.createObjectURL(file);
    const video = document.createElement('video');
    const done = (seconds) => { URL.revokeObjectURL(url); resolve(Number.isFinite(seconds) ? seconds : 0); };
    video.preload = 'metadata';
    video.onloadedmetadata = () => done(video.duration);
    video.onerror = () => done(0);
    setTimeout(() => done(0), 3000);
    video.src = url;
  });
}

/** What a reference looks like, small. */
export function preview(item, { alt = '' } = {}) {
  const picture = h('img', { src: item.preview, alt, loading: 'lazy', decoding: 'async' });
  picture.addEventListener('error', () => picture.replaceWith(icon(item.kind === 'video' ? 'film' : 'image')));
  return h('span', { class: 'preview' }, picture,
    item.kind === 'video' ? h('b', { class: 'badge' }, icon('play'), item.seconds ? clock(item.seconds) : '') : null);
}

/**
 * A stretch of a film, without sound, again and again.
 */
export function moment(url, startS, endS, { controls = false } = {}) {
  const start = startS ?? 0;
  const fragment = endS ? `#t=${start.toFixed(2)},${endS.toFixed(2)}` : '';
  const video = h('video', { muted: true, playsinline: true, preload: 'auto', controls });
  video.muted = true;
  video.addEventListener('timeupdate', () => {
    if (!video.dataset.free && endS && (video.currentTime >= endS - 0.05)) { video.currentTime = start; video.play().catch(() => {}); }
  });
  video.addEventListener('ended', () => {
    if (!video.dataset.free) { video.currentTime = start; video.play().catch(() => {}); }
  });
  video.src = url + fragment;
  return video;
}
