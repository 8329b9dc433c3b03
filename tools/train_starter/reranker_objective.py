"""What the starter reranker is trained for: yes or no, captions, and seeing.

Yes or no alone hardly teaches the model to see. Describing pictures does, and so do heads that read
off each vision token what it shows; both stay beside it, or objects and relations are forgotten.
A third head tells what a near-miss differs in, from the state that says yes or no: so each
comparison gets an error of its own. The heads are thrown away after training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from secondglance.rerank.layers import patches
from secondglance.scenes.vocabulary import COLOURS, PLACES, TIMES, WEATHERS, kinds
from tools.train_starter.reranker_data import KINDS, Batch
from tools.train_starter.reranker_facts import FACTS, ROLES
from tools.train_starter.reranker_forward import Forward, Seen, join
from tools.train_starter.reranker_model import ANSWERS
from tools.train_starter.reranker_seeing import IGNORED, POSE

Inputs: TypeAlias = "dict[str, Tensor]"
"""Tensors of a batch, by name: see `inputs`."""
LOSSES = ("yesno", "reason", "roles", "facts", "caption", "seeing", "kinds told", "facts told")
"""What `Objective` reports, in this order."""
DECIDING = 1
"""Layers that are left to compare what was asked with what is true."""
SCENERY = (len(PLACES), len(TIMES), len(WEATHERS))


@dataclass(frozen=True, slots=True)
class Layout:
    """What of a batch is no tensor.

    Attributes:
        queries: So many consecutive pairs share a candidate.
        query: (height, width) of its pictures.
        document: (height, width) of its pictures.
        told_from: Column from which captions are told.
        judging: Whether yes or no is asked.
        telling: Whether captions are.
    """

    queries: int
    query: tuple[int, int] | None
    document: tuple[int, int] | None
    told_from: int
    judging: bool
    telling: bool


def inputs(batch: Batch) -> dict[str, Any]:
    """The arrays of a batch by name, without pixels."""
    words = {"": batch.words, "caption_": batch.caption}
    found = {
        f"{prefix}{name}": getattr(value, name)
        for prefix, value in words.items()
        if value is not None
        for name in ("ids", "positions", "spots")
    }
    found |= {"last": batch.last, "labels": batch.labels, "kinds": batch.kinds}
    found |= {"meant": batch.facts.meant, "facts": batch.facts.values}
    if batch.caption is not None:
        found["caption_to"] = batch.caption_to
    if batch.shown is not None:
        for name in ("kind", "colour", "pose", "scenery"):
            found[f"shown_{name}"] = getattr(batch.shown, name)
    return found


class Objective(torch.nn.Module):
    """Losses of a batch.

    Args:
        forward: The model.
        tokenizer: Knows the answers' tokens.
    """

    def __init__(self, forward: Forward, tokenizer: Any) -> None:
        super().__init__()
        # Not a submodule: its weights are the trained model's, and listed there.
        self._forward = [forward]
        self._answers = [tokenizer.token_to_id(word) for word in ANSWERS]
        width = forward.model.config.text_config.hidden_size
        self.eyes = Eyes(width)
        self.reasons = torch.nn.Linear(width, len(KINDS))
        torch.nn.init.zeros_(self.reasons.weight)
        self.thoughts = Thoughts(width)

    def forward(
        self, layout: Layout, given: Mapping[str, Tensor], weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses.

        Args:
            layout: Of the batch.
            given: Its tensors, with the pixels as `query` and `document`.
            weights: Of yes/no, reason, roles, facts, caption and seeing: (6,).

        Returns:
            The weighted loss; `LOSSES`, not finite where it does not apply; and by kind the number
            of right answers and of all: (2, kinds).
        """
        query, document = self.see(layout, given)
        device = weights.device
        missing = torch.full((), float("nan"), device=device)
        found = dict.fromkeys(LOSSES, missing)
        answers = torch.zeros(2, len(KINDS), device=device)
        loss = torch.zeros((), device=device)
        if layout.judging:
            states, spots = self._states(layout, given, query, document)
            state = self._last(self._forward[0].last_norm(states[-1]), given)
            log_odds = self._log_odds(state)
            found["yesno"] = F.binary_cross_entropy_with_logits(log_odds, given["labels"])
            found["reason"] = F.cross_entropy(self.reasons(state).float(), given["kinds"])
            loss = loss + weights[0] * found["yesno"] + weights[1] * found["reason"]
            if query is None:
                found["facts"], found["facts told"] = self.thoughts.facts(
                    self._last(states[-1 - DECIDING], given), given["facts"]
                )
                loss = loss + weights[3] * found["facts"]
            if query is None and spots is not None:
                middle = states[len(states) // 2]
                where = spots[..., None].expand(-1, -1, middle.shape[-1])
                found["roles"] = self.thoughts.roles(
                    middle.gather(1, where),
                    given["shown_kind"].repeat_interleave(layout.queries, 0),
                    given["meant"],
                )
                loss = loss + weights[2] * found["roles"]
            right = ((log_odds.detach() > 0) == (given["labels"] > 0.5)).float()
            both = torch.stack([right, torch.ones_like(right)])
            answers.index_add_(1, given["kinds"], both)
        if layout.telling:
            found["caption"] = self._caption(layout, given, document)
            loss = loss + weights[4] * found["caption"]
        if document is not None:
            found["seeing"], found["kinds told"] = self.eyes(
                document,
                *(given[f"shown_{name}"] for name in ("kind", "colour", "pose", "scenery")),
            )
            loss = loss + weights[5] * found["seeing"]
        told = torch.stack([found[name].detach().float() for name in LOSSES])
        return loss, told, answers

    def see(self, layout: Layout, given: Mapping[str, Tensor]) -> tuple[Seen | None, Seen | None]:
        """The pictures of queries and candidates, as the vision tower sees them."""

        def look(name: str, size: tuple[int, int] | None) -> Seen | None:
            return None if size is None else self._forward[0].see(patches(given[name]), *size)

        query = look("query", layout.query) if layout.judging else None
        return query, look("document", layout.document)

    def judge(
        self,
        layout: Layout,
        given: Mapping[str, Tensor],
        query: Seen | None,
        document: Seen | None,
    ) -> Tensor:
        """Log-odds of each pair."""
        states, _ = self._states(layout, given, query, document)
        return self._log_odds(self._last(self._forward[0].last_norm(states[-1]), given))

    def _states(
        self,
        layout: Layout,
        given: Mapping[str, Tensor],
        query: Seen | None,
        document: Seen | None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Hidden states after each layer, and where the candidates' vision tokens are."""
        if document is not None:
            document = document.repeated(layout.queries)
        parts = [part for part in (query, document) if part is not None]
        seen = join(parts) if parts else None
        states = self._forward[0].states(given["ids"], given["positions"], seen, given["spots"])
        if document is None:
            return states, None
        return states, given["spots"][:, -document.tokens.shape[1] :]

    def _last(self, hidden: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """States of the prompts' last tokens."""
        place = given["last"][:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, place)[:, 0].float()

    def _log_odds(self, state: Tensor) -> Tensor:
        with torch.autocast(state.device.type, enabled=False):
            return self._forward[0].log_odds(state, *self._answers)

    def _caption(
        self, layout: Layout, given: Mapping[str, Tensor], document: Seen | None
    ) -> Tensor:
        hidden = self._forward[0].read(
            given["caption_ids"], given["caption_positions"], document, given["caption_spots"]
        )
        logits = self._forward[0].logits(hidden[:, layout.told_from :]).float()
        targets = given["caption_to"][:, layout.told_from :]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


class Eyes(torch.nn.Module):
    """Heads that read `Shown` off vision tokens.

    Args:
        width: Of a vision token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._sizes = (1 + len(kinds()), 1 + len(COLOURS), POSE)
        self._norm = torch.nn.LayerNorm(width)
        self._token = torch.nn.Linear(width, sum(self._sizes))
        self._whole = torch.nn.Linear(width, sum(SCENERY))

    def forward(
        self, seen: Seen, kind: Any, colour: Any, pose: Any, scenery: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the share of objects' tokens whose kind is told right."""
        tokens = self._norm(seen.tokens)
        sort, tint, place = self._token(tokens).float().split(self._sizes, -1)
        there = (kind > 0).float()
        # Objects cover a small part of most pictures.
        flat = F.cross_entropy(
            sort.flatten(0, 1), kind.flatten(), reduction="none", ignore_index=IGNORED
        ).view_as(there)
        weight = torch.where(kind > 0, 1.0, 0.25) * (kind != IGNORED)
        named = (flat * weight).sum() / weight.sum().clamp_min(1)
        tinted = F.cross_entropy(
            tint.flatten(0, 1), colour.flatten(), reduction="none", ignore_index=IGNORED
        )
        known = (colour != IGNORED).sum().clamp_min(1)
        posed = F.smooth_l1_loss(place, pose, reduction="none").mean(-1) * there
        objects = there.sum().clamp_min(1)
        loss = named + 0.5 * tinted.sum() / known + posed.sum() / objects
        scene = self._whole(tokens.mean(1)).float().split(SCENERY, -1)
        for number, logits in enumerate(scene):
            told = F.cross_entropy(
                logits, scenery[:, number], reduction="none", ignore_index=IGNORED
            )
            loss = loss + 0.3 * told.sum() / (scenery[:, number] != IGNORED).sum().clamp_min(1)
        right = ((sort.argmax(-1) == kind).float() * there).sum() / objects
        return loss, right.detach()


class Thoughts(torch.nn.Module):
    """Heads that read `Facts` off hidden states of the language model.

    Args:
        width: Of a hidden state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._role = torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.Linear(width, ROLES))
        self._fact = torch.nn.Sequential(
            torch.nn.LayerNorm(width), torch.nn.Linear(width, sum(FACTS.values()))
        )

    def roles(self, states: Tensor, kind: Tensor, meant: Tensor) -> Tensor:
        """The loss of telling which words each vision token belongs to.

        Args:
            states: (pairs, vision tokens, width).
            kind: (pairs, vision tokens): see `Shown`.
            meant: See `Facts`.
        """
        named = kind[..., None] == 1 + meant[:, None]  # of no kind is 0, which is backdrop
        named = named & (meant[:, None] >= 0)
        role = torch.where(named[..., 2:].any(-1), ROLES - 1, 0)
        role = torch.where(named[..., 1], 2, torch.where(named[..., 0], 1, role))
        lost = F.cross_entropy(
            self._role(states).float().flatten(0, 1), role.flatten(), reduction="none"
        ).view_as(role)
        # Whether a group is meant is told by its own tokens; they cover a small part.
        weight = torch.where(kind > 0, 1.0, 0.25)
        return (lost * weight).sum() / weight.sum()

    def facts(self, state: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of telling what was asked and what is true; and the share told right.

        Args:
            state: (pairs, width).
            values: See `Facts`.
        """
        loss = torch.zeros((), device=state.device)
        right, known = loss, loss
        for number, logits in enumerate(self._fact(state).float().split([*FACTS.values()], -1)):
            value = values[:, number]
            lost = F.cross_entropy(logits, value, reduction="sum", ignore_index=IGNORED)
            there = (value != IGNORED).sum()
            loss = loss + lost / there.clamp_min(1)
            right = right + (logits.argmax(-1) == value).sum()
            known = known + there
        return loss, (right / known).detach()
