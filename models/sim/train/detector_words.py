"""Words besides the taxonomy: things the simulated world does not contain, and a little English grammar."""

from __future__ import annotations

# Things that never stand in the simulated world: prompts for them must find nothing.
ABSENT_WORDS = """
person; dog; cat; car; bus; window; door; bed; curtain; carpet; refrigerator; oven; sink; toilet; bathtub; mirror;
towel; pillow; blanket; shoe; boot; shirt; glove; backpack; suitcase; umbrella; bicycle; motorcycle; airplane; boat;
train; skateboard; surfboard; tennis racket; kite; apple; carrot; broccoli; pizza; cake; sandwich; donut; fork; knife;
spoon; toothbrush; hair dryer; teddy bear; remote control; computer mouse; toaster; microwave; drill; saw; wrench;
pliers; rope; chain; wheel; engine; robot; drone; helmet; bag; candle; picture frame; painting; guitar; piano; violin;
trumpet; headphones; speaker; tripod; printer; fan; heater; radiator; pipe; valve; battery; cable; light switch; pen;
eraser; ruler; stapler; envelope; calculator; newspaper; coin; wallet; key; padlock; necklace; sunglasses; comb;
paint brush; sponge; soap; broom; vacuum cleaner; iron; washing machine; horse; cow; sheep; bird; fish; snake; grass;
rock; mountain; river; cloud; bridge; fence; tent; flag; trophy; doll; jigsaw puzzle; dice; bell; whistle; syringe;
pipette; thermometer; stethoscope; crutch; bandage; apron; oven mitt; cutting board; grater; whisk; rolling pin;
blender; egg; loaf of bread; cheese; strawberry; pineapple; watermelon; lemon; tomato; potato; onion; mushroom;
cucumber; wall; floor; ceiling; table; desk; shelf; cupboard; staircase; tree; bush; sky; road; human hand; face
"""


# The same, but never used in training either.
UNTRAINED_ABSENT_WORDS = (
    "tennis court", "camel", "elephant", "ship", "helicopter", "tractor", "wardrobe", "ladder", "scissors", "guitar case",
    "lobster", "pumpkin", "carpet cleaner", "parrot", "waterfall", "castle", "ice cream", "snowboard", "harmonica", "anchor",
    "canoe", "telescope", "sewing machine", "wheelbarrow", "mailbox", "fountain", "saddle", "jacket", "escalator", "rocket",
)  # fmt: skip


def with_article(text: str) -> str:
    """'mug' -> 'a mug', 'alarm clock' -> 'an alarm clock'."""
    return ("an " if text[0] in "aeio" or text.startswith("upholstered") else "a ") + text


def plural(text: str) -> str:
    """A regular English plural of the last word."""
    if text.endswith(("s", "x", "ch", "sh")):
        return text + "es"
    return text + "s"
