// Before the first search: some pictures of the library, each a way in.

import { get, post, thumbnail } from './api.js';
import { justified, ratio } from './grid.js';
import { t } from './i18n.js';
import { fileName, h } from './ui.js';

const COUNT = 18;

/** Shows pictures; only where the first pass has its model, for looking must not load one. */
export async function lookAround(place, like) {
  try {
    const models = await get('/v1/models');
    if (!models.recall.loaded) return;
    const { hits } = await post('/v1/search', { query: t('search.around_query'), k: COUNT, kind: 'image', rerank: false, words: false });
    if (!hits.length || !place.isConnected) return;
    const mosaic = h('div', { class: 'mosaic' }, ...hits.map((hit) => {
      const image = h('img', { src: thumbnail(hit.id, 384), alt: '', loading: 'lazy', decoding: 'async' });
      const card = h('button', { type: 'button', 'aria-label': `${t('card.like')}: ${fileName(hit.path)}`, on: { click: () => like(hit) } }, image);
      image.addEventListener('error', () => card.remove());
      return card;
    }));
    const shapes = hits.map(ratio);
    const draw = () => {
      const width = mosaic.clientWidth;
      if (!width) return;
      const { boxes, height } = justified(shapes, width, width < 520 ? 110 : 170, { gap: 8, caption: 0 });
      mosaic.style.height = `${height}px`;
      [...mosaic.children].forEach((card, at) => {
        const box = boxes[at];
        Object.assign(card.style, { left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px` });
      });
    };
    place.replaceChildren(h('h2', { t: 'search.around' }), mosaic);
    new ResizeObserver(draw).observe(mosaic);
  } catch {
    // It is only there to please.
  }
}
