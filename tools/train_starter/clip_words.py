"""Everyday words from which captions are composed, English and Chinese."""

from __future__ import annotations


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split("|"))


PEOPLE = _listed(
    "man|woman|boy|girl|child|baby|toddler|person|lady|guy|player|skier|surfer|cyclist|worker|"
    "soldier|runner|climber|hiker|fisherman|tourist|dancer|musician|chef|farmer|student|"
    "teacher|skateboarder|snowboarder|swimmer|photographer|policeman|bride|young man|"
    "young woman|old man|elderly woman|little boy|little girl|small child|teenager|mother|"
    "father|couple|family|rider|football player|baseball player|basketball player|"
    "tennis player|soccer player|hockey player"
)
GROUPS = _listed(
    "people|men|women|children|kids|boys|girls|friends|players|dogs|players in uniform|"
    "young people|teenagers|adults|tourists|soldiers|runners|cyclists|students|dancers|"
    "musicians"
)
ANIMALS = _listed(
    "dog|cat|horse|cow|bird|sheep|elephant|bear|zebra|giraffe|puppy|kitten|duck|goat|monkey|"
    "lion|brown dog|black dog|white dog|black and white dog|large dog|small dog|tan dog|"
    "golden retriever|greyhound|poodle|german shepherd|seagull|pigeon|swan|deer|rabbit|fox|"
    "wolf|parrot|donkey|pig"
)
THINGS = _listed(
    "car|bicycle|motorcycle|bus|train|truck|boat|airplane|bench|umbrella|ball|frisbee|"
    "skateboard|surfboard|tennis racket|kite|baseball bat|bat|guitar|backpack|suitcase|handbag|"
    "tie|hat|helmet|cap|shirt|dress|jacket|coat|book|cup|bottle|glass|fork|knife|spoon|bowl|"
    "banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|sofa|"
    "plant|bed|table|desk|toilet|television|laptop|computer|mouse|remote|keyboard|cell phone|"
    "phone|microwave|oven|toaster|sink|refrigerator|clock|vase|scissors|teddy bear|hair dryer|"
    "toothbrush|stick|toy|rope|swing|slide|tree|flower|fence|wall|rock|log|fountain|statue|"
    "sign|traffic light|fire hydrant|stop sign|parking meter|house|building|church|bridge|"
    "tower|tent|camera|microphone|drum|trumpet|violin|piano|flag|balloon|basket|box|bag|bucket|"
    "ladder|shovel|wagon|cart|sled|skis|snowboard|canoe|kayak|raft|paddle|fishing pole|"
    "cowboy hat|sunglasses|mask|costume|ice cream|drink|beer|food|sandal|shoe|boots|gloves|"
    "scarf|pool|tunnel|hoop|hurdle|ramp|rail|stairs|window|door|mirror"
)
MASS = _listed("water|snow|grass|sand|mud|dirt|leaves|ice|rocks|food|bubbles")
COLOURS = _listed(
    "red|blue|green|yellow|orange|purple|pink|white|black|brown|gray|tan|dark|bright|silver|"
    "golden|colorful|striped|spotted|plaid"
)
QUALITIES = _listed(
    "small|large|big|little|young|old|tall|happy|wet|muddy|wooden|empty|long|short|furry|"
    "fluffy|smiling|shirtless|barefoot|bearded|blond|dark-haired|busy|crowded|sunny|snowy|"
    "rocky|grassy|dirty"
)
PLACES = _listed(
    "on the beach|in the park|on the street|in the snow|in the water|in a field|on a field|"
    "in the grass|on the grass|in a pool|in the ocean|on a mountain|in the woods|in the forest|"
    "on a lake|in a river|near a lake|by the sea|on a boat|on a bench|at a table|"
    "in the kitchen|in a living room|in a bedroom|in a bathroom|in a restaurant|on a sidewalk|"
    "on the road|in the city|on a city street|at night|at sunset|in the air|"
    "in front of a building|in front of a crowd|in front of a house|next to a tree|"
    "near a fence|behind a fence|on a court|on a basketball court|on a tennis court|"
    "on a baseball field|on a soccer field|in a stadium|on a stage|on a couch|on a bed|"
    "on the floor|on a rock|on a cliff|on a dirt road|on a dirt path|on a trail|on a track|"
    "at a race|at a playground|on a swing|on a slide|in a backyard|in the yard|"
    "through the woods|through the water|through a field|across the sand|over a hurdle|"
    "down a hill|down a slide|down a snowy hill|down the street|up a rock wall|up a mountain|"
    "into the pool|along the shore|at the edge of the water|under an umbrella|under a tree|"
    "in a tent|in a boat|in a crowd|outside|indoors|outdoors|in a market|at a train station|"
    "at an airport|in an office|in a store|in a car|by a river|at the zoo|on a bridge|in a gym|"
    "at a party|in a parade|at a concert|in the mud|in the rain|in the desert|in the sunshine|"
    "with mountains behind them"
)
ACTS = _listed(
    "running|walking|standing|sitting|jumping|playing|swimming|sleeping|lying down|smiling|"
    "laughing|eating|drinking|reading|talking|singing|dancing|climbing|skiing|surfing|"
    "snowboarding|skateboarding|riding a bike|riding a horse|riding a motorcycle|riding a wave|"
    "riding a skateboard|playing soccer|playing football|playing basketball|playing baseball|"
    "playing tennis|playing volleyball|playing hockey|playing guitar|playing the drums|"
    "playing a game|playing in the snow|playing in the sand|playing in the water|"
    "throwing a ball|catching a ball|kicking a ball|hitting a ball|swinging a bat|"
    "catching a frisbee|holding a sign|holding a baby|holding a camera|taking a picture|"
    "posing for a picture|looking at the camera|looking away|talking on a cell phone|"
    "cooking food|cutting a cake|blowing bubbles|waving|crying|yelling|pointing|hugging|"
    "kissing|splashing|diving|fishing|hiking|camping|paddling|rowing a boat|flying a kite|"
    "pushing a cart|pulling a sled|carrying a bag|wearing a hat|wearing sunglasses|"
    "doing a trick|performing a stunt|jumping over a fence|jumping off a rock|"
    "jumping into water|crossing the street|waiting for a bus|working on a computer|"
    "painting a wall|digging in the sand|sliding down|swinging|leaning against a wall|kneeling|"
    "resting|racing|fighting|tackling another"
)
ANIMAL_ACTS = _listed(
    "running|walking|standing|sitting|jumping|lying down|sleeping|playing|swimming|eating|"
    "drinking|chasing a ball|catching a frisbee|carrying a stick|with a stick in its mouth|"
    "with a ball in its mouth|chewing on a bone|jumping over a hurdle|jumping in the air|"
    "shaking off water|digging|sniffing the ground|barking|looking up|looking at the camera|"
    "chasing another dog|wrestling with another dog|fetching a toy|pulling a sled|racing|"
    "splashing through water|leaping|grazing|flying|perched on a branch|climbing a tree|"
    "licking"
)
WEAR = _listed(
    "shirt|t-shirt|jacket|coat|hat|cap|dress|jersey|uniform|suit|sweater|hoodie|shorts|jeans|"
    "helmet|bathing suit|swimsuit|bikini|swim trunks|costume|tank top|skirt|vest|scarf|wetsuit|"
    "life jacket"
)
NUMBERS = _listed("two|three|four|five|several|some|many|a group of|a pair of")
RELATIONS = _listed(
    "next to|in front of|behind|beside|on top of|under|near|with|holding|looking at|on|in|over|"
    "between|against|above|below|to the left of|to the right of|inside|around"
)
FRAMES = (
    "{}", "{}", "{}", "{}", "{} .", "a photo of {}", "a picture of {}", "there is {}",
    "an image of {}", "a close up of {}", "a view of {}", "this is {}",
)  # fmt: skip
ZH_NUMBERS = {"one": "一", "two": "两", "three": "三", "four": "四", "five": "五", "many": "许多"}
ZH_COLOURS = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色", "orange": "橙色",
    "purple": "紫色", "pink": "粉色", "white": "白色", "black": "黑色", "brown": "棕色",
}  # fmt: skip
ZH_PLACES = {
    "on the beach": "在海滩上", "in the park": "在公园里", "on the street": "在街上",
    "in the snow": "在雪地里", "in the water": "在水里", "on the grass": "在草地上",
    "in the forest": "在森林里", "in the city": "在城市里", "in the desert": "在沙漠里",
    "in the mountains": "在山里", "on the sea": "在海上", "at night": "在夜晚",
    "in the rain": "在雨中", "at sunset": "在日落时", "in a field": "在田野里",
    "on a table": "在桌子上", "in a room": "在房间里", "on a mountain": "在山上",
}  # fmt: skip
ZH_ACTS = {
    "running": "奔跑", "walking": "走路", "standing": "站着", "sitting": "坐着",
    "jumping": "跳跃", "playing": "玩耍", "swimming": "游泳", "sleeping": "睡觉",
    "eating": "吃东西", "drinking": "喝水", "dancing": "跳舞", "singing": "唱歌",
    "riding a bike": "骑自行车", "riding a horse": "骑马", "playing soccer": "踢足球",
    "playing basketball": "打篮球", "playing guitar": "弹吉他", "reading a book": "看书",
    "talking on the phone": "打电话", "cooking": "做饭", "laughing": "大笑", "skiing": "滑雪",
    "surfing": "冲浪", "climbing": "攀爬", "taking a picture": "拍照", "fishing": "钓鱼",
}  # fmt: skip
ZH_SUBJECTS = {
    "man": "男人", "woman": "女人", "boy": "男孩", "girl": "女孩", "child": "孩子",
    "person": "人", "baby": "婴儿", "dog": "狗", "cat": "猫", "horse": "马", "bird": "鸟",
    "old man": "老人", "little girl": "小女孩", "little boy": "小男孩", "monkey": "猴子",
}  # fmt: skip
