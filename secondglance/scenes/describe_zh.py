"""Chinese descriptions, in varied wording."""

from __future__ import annotations

import random

from secondglance.scenes.plan import Mention, Plan
from secondglance.scenes.scene import Scene
from secondglance.scenes.vocabulary import Colour, Relation, Verb, kinds

NUMBERS = ("", "一", "两", "三", "四", "五")
COLOURS: dict[Colour, tuple[str, ...]] = {
    "red": ("红色的", "红"),
    "yellow": ("黄色的", "黄"),
    "green": ("绿色的", "绿"),
    "blue": ("蓝色的", "蓝"),
    "purple": ("紫色的", "紫"),
    "pink": ("粉色的", "粉红色的"),
    "white": ("白色的", "白"),
    "black": ("黑色的", "黑"),
}
SIZES = {"small": ("很小的", "小小的"), "big": ("很大的", "巨大的")}
PLACES = {
    "meadow": ("草地上", "绿色的草原上"),
    "beach": ("海滩上", "沙滩上", "海边的沙地上"),
    "desert": ("沙漠里", "沙漠中", "沙丘之间"),
    "snowfield": ("雪地里", "雪地上", "雪原上"),
    "forest": ("森林里", "树林里", "树林前"),
    "mountains": ("山里", "群山前", "山脉前"),
    "city": ("城市里", "城里", "高楼前"),
    "sea": ("海上", "大海上", "海面上"),
}
TIMES = {
    "day": ("白天", "日间"),
    "sunset": ("日落时", "傍晚", "黄昏"),
    "night": ("夜里", "夜晚", "晚上"),
}
WEATHERS = {
    "clear": ("天气晴朗", "晴天"),
    "rain": ("下着雨", "雨中", "下雨时"),
    "snow": ("下着雪", "飘着雪", "下雪时"),
    "fog": ("有雾", "大雾中", "雾里"),
}
RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left": ("左边", "左侧", "左面"),
    "right": ("右边", "右侧", "右面"),
    "above": ("上面", "上方"),
    "below": ("下面", "下方"),
}
VERBS: dict[Verb, tuple[str, ...]] = {
    "left": ("向左移动", "往左走"),
    "right": ("向右移动", "往右走"),
    "up": ("上升", "向上移动"),
    "down": ("下降", "向下移动"),
    "jump": ("在跳", "跳来跳去", "蹦跳"),
    "spin": ("在旋转", "转圈"),
    "grow": ("变大", "越来越大"),
    "shrink": ("变小", "越来越小"),
    "appear": ("出现", "突然出现"),
    "disappear": ("消失", "不见了"),
    "return": ("折返", "走了又回来", "掉头回来"),
    "meet": ("相遇", "走到一起"),
    "part": ("分开", "彼此离开"),
}
PICTURES = ("图片：", "照片：", "图中", "一张图片，")
CLIPS = ("视频：", "短片：", "视频中", "一段视频，")


def describe_zh(scene: Scene, plan: Plan, rng: random.Random) -> str:
    """Puts what the plan states of a scene into one Chinese line."""
    phrases = {m.group: _phrase(scene, m, rng) for m in plan.mentions}
    setting = _setting(scene, plan, rng)
    if not phrases:
        return rng.choice(CLIPS if scene.moving else PICTURES) + "，".join(setting or ["风景"])
    told = _things(scene, plan, phrases, rng)
    if rng.random() < 0.2:
        line = "，".join([told, *setting])
    elif setting:
        last = setting[-1] if plan.place and rng.random() < 0.8 else f"{setting[-1]}，"
        line = "，".join([*setting[:-1], f"{last}{told}"])
    else:
        line = told
    if rng.random() < 0.3:
        line = rng.choice(CLIPS if scene.moving else PICTURES) + line
    return line


def _things(scene: Scene, plan: Plan, phrases: dict[int, str], rng: random.Random) -> str:
    left = dict(phrases)
    clauses = []
    for number in plan.motions:
        motion = scene.motions[number]
        verb = rng.choice(VERBS[motion.verb])
        if motion.other is not None:
            pair = [left.pop(motion.group), left.pop(motion.other)]
            rng.shuffle(pair)
            clauses.append(f"{pair[0]}和{pair[1]}{verb}")
        else:
            clauses.append(f"{left.pop(motion.group)}{verb}")
    if plan.relation:
        first, relation, second = plan.relation
        side = rng.choice(RELATIONS[relation])
        a, b = left.pop(first), left.pop(second)
        clauses.append(f"{a}在{b}的{side}" if rng.random() < 0.6 else f"{b}的{side}是{a}")
    rest = _join(list(left.values()), rng)
    if not clauses:
        return f"有{rest}" if rng.random() < 0.6 else rest
    told = "，".join(clauses)
    if not rest:
        return told
    return f"{told}，还有{rest}" if rng.random() < 0.6 else f"有{rest}，{told}"


def _join(parts: list[str], rng: random.Random) -> str:
    if len(parts) < 3:
        return rng.choice(("和", "与")).join(parts)
    return f"{'、'.join(parts[:-1])}和{parts[-1]}"


def _phrase(scene: Scene, mention: Mention, rng: random.Random) -> str:
    """Names a group, such as `三只很小的红色的狗`."""
    group = scene.groups[mention.group]
    kind = kinds()[group.kind]
    name = kind.zh[0] if rng.random() < 0.65 else rng.choice(kind.zh)
    words = ""
    if mention.size:
        words += rng.choice(SIZES[group.size])
    if mention.colour and group.colour:
        words += rng.choice(COLOURS[group.colour])
    if group.count > 1 and not mention.count:
        return f"几{kind.classifier}{words}{name}"
    if mention.count:
        number = NUMBERS[group.count] if rng.random() < 0.8 else str(group.count)
        return f"{number}{kind.classifier}{words}{name}"
    return words + name


def _setting(scene: Scene, plan: Plan, rng: random.Random) -> list[str]:
    """Time and weather, then the place, which leads over to what is there."""
    parts = []
    if plan.time:
        parts.append(rng.choice(TIMES[scene.time]))
    if plan.weather:
        parts.append(rng.choice(WEATHERS[scene.weather]))
    if rng.random() < 0.3:
        parts.reverse()
    if plan.place:
        parts.append(rng.choice(PLACES[scene.place]))
    return parts
