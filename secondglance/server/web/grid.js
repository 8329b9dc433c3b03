// Results as rows of pictures in their true shapes. Places are known before any picture has come,
// so that nothing jumps; a new order is an animation from the old places.

import { media, thumbnail } from './api.js';
import { percent, t } from './i18n.js';
import { moment } from './media.js';
import { button, clock, fileName, h, icon, still } from './ui.js';

const GAP = 14;
const CAPTION = 46;
const NARROWEST = 0.62;
const WIDEST = 2.2;
const HOVER_MS = 140;
const MOVE_MS = 520;

/** Places of boxes with these ratios in rows of a width: `{boxes, height}`. */
export function justified(ratios, width, target, { gap = GAP, caption = CAPTION } = {}) {
  const boxes = [];
  let row = [];
  let top = 0;
  const close = (last) => {
    const sum = row.reduce((total, ratio) => total + ratio, 0);
    const room = width - gap * (row.length - 1);
    const height = last ? Math.min(target * 1.12, room / sum) : room / sum;
    let left = 0;
    for (const ratio of row) {
      boxes.push({ left, top, width: ratio * height, height: height + caption });
      left += ratio * height + gap;
    }
    top += height + caption + gap;
    row = [];
  };
  for (const ratio of ratios) {
    row.push(Math.min(WIDEST, Math.max(NARROWEST, ratio)));
    const sum = row.reduce((total, each) => total + each, 0);
    if (sum * target + gap * (row.length - 1) >= width) close(false);
  }
  if (row.length) close(true);
  return { boxes, height: Math.max(0, top - gap) };
}

/** Width to height of what a hit shows. */
export function ratio(hit) {
  const { width, height } = hit.metadata ?? {};
  if (hit.kind === 'text') return 1.25;
  return width > 0 && height > 0 ? width / height : 4 / 3;
}

/** What stays the same of a hit in both passes: of a film the best moment may change. */
export function keyOf(hit) {
  return hit.kind === 'video' ? `video:${hit.item || hit.id}` : hit.id;
}

/** The cards of a list of hits. */
export class Grid {
  constructor(root, { onOpen, onLike }) {
    this.root = root;
    this.onOpen = onOpen;
    this.onLike = onLike;
    this.cards = new Map();
    this.hits = [];
    this.observer = new ResizeObserver(() => this.place());
    this.observer.observe(root);
    root.addEventListener('keydown', (event) => this.keys(event));
  }

  /** Height that rows aim at. */
  target() {
    const width = this.root.clientWidth;
    return width < 520 ? 146 : Math.min(236, Math.max(168, width / 5.4));
  }

  /** Grey boxes, while nothing is known. */
  wait(count = 14) {
    this.hits = [];
    this.cards.clear();
    this.shapes = Array.from({ length: count }, (_, i) => [1.5, 1.33, 0.75, 1.5, 1, 1.78, 1.33][i % 7]);
    this.root.replaceChildren(...this.shapes.map(() => h('div', { class: 'card waiting' },
      h('div', { class: 'shot' }), h('div', { class: 'lines' }, h('i'), h('i')))));
    this.place();
  }

  /**
   * Shows hits in this order; those that are there already move to their places.
   *
   * `pending`: the second pass is under way. `first`: this is the order of the first pass.
   */
  show(hits, { pending = false, first = false } = {}) {
    const before = new Map([...this.cards].map(([key, card]) => [key, card.getBoundingClientRect()]));
    const focused = document.activeElement?.closest?.('.card')?.dataset.key;
    const cards = new Map();
    const seen = new Map();
    for (const hit of hits) {
      const plain = keyOf(hit);
      seen.set(plain, (seen.get(plain) ?? 0) + 1);
      const key = seen.get(plain) === 1 ? plain : `${plain}#${seen.get(plain)}`;
      const card = this.cards.get(key) ?? this.make(key);
      this.fill(card, hit, { pending, first });
      cards.set(key, card);
    }
    this.hits = hits;
    this.cards = cards;
    this.shapes = hits.map(ratio);
    this.root.replaceChildren(...cards.values());
    this.place();
    this.move(before);
    if (focused && cards.has(focused)) cards.get(focused).querySelector('.open').focus({ preventScroll: true });
  }

  /** Puts the boxes where they belong. */
  place() {
    const width = this.root.clientWidth;
    if (!width || !this.shapes) return;
    const { boxes, height } = justified(this.shapes, width, this.target(), { gap: width < 520 ? 8 : GAP });
    this.root.style.height = `${height}px`;
    [...this.root.children].forEach((card, index) => {
      const box = boxes[index];
      if (!box) return;
      Object.assign(card.style, {
        left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px`,
      });
    });
  }

  /** Lets cards glide from where they were (FLIP). */
  move(before) {
    if (still()) return;
    for (const [key, card] of this.cards) {
      const old = before.get(key);
      const now = card.getBoundingClientRect();
      if (!old) {
        card.animate([{ opacity: 0, transform: 'scale(.97)' }, { opacity: 1, transform: 'none' }], { duration: 260, easing: 'ease-out' });
        continue;
      }
      const [x, y] = [old.left - now.left, old.top - now.top];
      if (Math.abs(x) < 1 && Math.abs(y) < 1) continue;
      card.animate([
        { transform: `translate(${x}px, ${y}px) scale(${old.width / now.width}, ${old.height / now.height})`, zIndex: 2 },
        { transform: 'none', zIndex: 2 },
      ], { duration: MOVE_MS, easing: 'cubic-bezier(.22,.8,.2,1)' });
    }
  }

  make(key) {
    const card = h('article', { class: 'card', role: 'listitem', data: { key } });
    let timer = 0;
    card.addEventListener('pointerenter', (event) => {
      if (event.pointerType === 'mouse') timer = setTimeout(() => this.play(card), HOVER_MS);
    });
    card.addEventListener('pointerleave', () => { clearTimeout(timer); this.stop(card); });
    card.addEventListener('focusin', (event) => { if (event.target.matches('.open:focus-visible')) this.play(card); });
    card.addEventListener('focusout', () => this.stop(card));
    return card;
  }

  fill(card, hit, { pending, first }) {
    const same = card.hit && card.hit.id === hit.id;
    card.hit = hit;
    const place = first ? hit.recall_rank : hit.rank;
    const scores = h('div', { class: 'numbers' });
    scores.append(h('span', { class: 'recall', label: 'card.recall' }, hit.recall_score.toFixed(3)));
    if (pending) scores.append(icon('arrow'), h('span', { class: 'rerank pending' }, '···'));
    else if (hit.rerank_score !== null) {
      scores.append(icon('arrow'), h('span', { class: 'rerank', label: 'card.rerank' }, percent(hit.rerank_score)));
    }
    const caption = h('div', { class: 'caption' },
      h('div', { class: 'line' }, h('b', { class: 'rank' }, String(place)), pending ? null : shift(hit),
        h('span', { class: 'name' }, fileName(hit.path))),
      scores);
    if (same) {
      card.querySelector('.caption').replaceWith(caption);
      card.querySelector('.open').setAttribute('aria-label', spoken(hit, place));
      return;
    }
    card.replaceChildren(
      h('div', { class: `shot ${hit.kind}` }, ...picture(hit), ...badges(hit),
        h('button', { type: 'button', class: 'open', 'aria-label': spoken(hit, place), on: { click: () => this.onOpen(card.hit) } }),
        h('div', { class: 'quick' },
          hit.kind === 'video' ? button({ icon: 'play', className: 'glass touch', label: 'card.play', on: { click: () => this.play(card) } }) : null,
          button({ icon: 'like', className: 'glass', label: 'card.like', on: { click: () => this.onLike(card.hit) } }))),
      caption);
  }

  play(card) {
    const { hit } = card;
    const shot = card.querySelector('.shot.video');
    if (!hit || !shot || shot.querySelector('video')) return;
    const video = moment(media(hit.id), hit.start_s, hit.end_s);
    video.addEventListener('playing', () => shot.classList.add('playing'), { once: true });
    video.addEventListener('error', () => video.remove());
    shot.querySelector('img')?.after(video);
    video.play().catch(() => {});
  }

  stop(card) {
    const video = card.querySelector('.shot video');
    if (!video) return;
    video.removeAttribute('src');
    video.load();
    video.remove();
    card.querySelector('.shot').classList.remove('playing');
  }

  /** Hit of the card that has the focus, if any. */
  current() {
    return document.activeElement?.closest?.('.card')?.hit ?? null;
  }

  /** Arrow keys go to the nearest card in their direction. */
  keys(event) {
    const card = event.target.closest('.card');
    const cards = [...this.cards.values()];
    const at = cards.indexOf(card);
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    let next = null;
    if (event.key === 'ArrowRight') next = cards[at + 1];
    else if (event.key === 'ArrowLeft') next = cards[at - 1];
    else if (event.key === 'Home') [next] = cards;
    else if (event.key === 'End') next = cards.at(-1);
    else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') next = vertical(cards, card, event.key === 'ArrowDown');
    else return;
    event.preventDefault();
    next?.querySelector('.open').focus();
  }

  /** Goes to the first card. */
  focusFirst() {
    this.cards.values().next().value?.querySelector('.open').focus();
  }
}

function vertical(cards, card, down) {
  const middle = card.offsetLeft + card.offsetWidth / 2;
  const rows = cards.filter((each) => (down ? each.offsetTop > card.offsetTop : each.offsetTop < card.offsetTop));
  const top = rows.length ? (down ? rows[0] : rows.at(-1)).offsetTop : null;
  const away = (each) => Math.abs(each.offsetLeft + each.offsetWidth / 2 - middle);
  return rows.filter((each) => each.offsetTop === top).sort((a, b) => away(a) - away(b))[0];
}

function picture(hit) {
  if (hit.kind === 'text') return [h('p', { class: 'passage' }, hit.text)];
  const size = devicePixelRatio > 1.2 ? 640 : 384;
  const image = h('img', { src: thumbnail(hit.id, size), alt: '', loading: 'lazy', decoding: 'async' });
  image.addEventListener('load', () => image.classList.add('there'), { once: true });
  image.addEventListener('error', () => image.replaceWith(h('div', { class: 'gone' }, icon(hit.kind === 'video' ? 'film' : 'image'))));
  return [image];
}

function badges(hit) {
  const found = h('div', { class: 'badges' });
  const copies = hit.copies.length + hit.near_duplicates.length;
  if (copies) found.append(h('span', { class: 'badge', label: ['card.copies', { count: copies }] }, icon('copies'), String(copies + 1)));
  if (hit.absent) found.append(h('span', { class: 'badge warn', t: 'card.absent' }));
  if (hit.error) found.append(h('span', { class: 'badge warn', title: hit.error }, icon('warning')));
  if (hit.kind === 'video') {
    const seconds = hit.metadata.duration_s ?? hit.end_s;
    found.append(h('span', { class: 'badge' }, icon('play'), seconds ? clock(seconds) : ''));
  }
  return found.children.length ? [found] : [];
}

/** By how much a hit moved in the second pass. */
export function shift(hit) {
  const by = hit.recall_rank - hit.rank;
  if (!by) return h('span', { class: 'shift same', label: 'card.same' }, '–');
  return h('span', { class: `shift ${by > 0 ? 'rise' : 'fall'}`, label: [by > 0 ? 'card.up' : 'card.down', { count: Math.abs(by) }] },
    icon(by > 0 ? 'up' : 'down'), String(Math.abs(by)));
}

function spoken(hit, place) {
  const score = hit.rerank_score === null ? hit.recall_score.toFixed(2) : percent(hit.rerank_score);
  return t('card.spoken', { rank: place, name: fileName(hit.path), score });
}
