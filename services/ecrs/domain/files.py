"""The lines of a bundle's record files: users.dat, products.dat and histories.dat."""

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.entities import ITEM_FIELDS, MAX_TIMESTAMP, PROFILE_FIELDS, Item, User, _fields


def parse_user(line: str) -> User:
    """Parse `id:age:sex:city_level:province:city:county`; ValueError names the fault."""
    user_id, *profile = _fields(line, ("id", *PROFILE_FIELDS))
    return User(user_id, **dict(zip(PROFILE_FIELDS, profile, strict=True)))  # type: ignore[arg-type]


def format_user(user: User) -> str:
    """Return the user as a line of users.dat, without the newline. Inverse of `parse_user`."""
    return ":".join((user.id, *(getattr(user, name) for name in PROFILE_FIELDS)))


def parse_item(line: str) -> Item:
    """Parse `sku:brand:shop:category`; ValueError names the fault."""
    sku, brand, shop, category = _fields(line, ITEM_FIELDS)
    return Item(sku, brand, shop, category)


def format_item(item: Item) -> str:
    """Return the item as a line of products.dat, without the newline. Inverse of `parse_item`."""
    return ":".join((item.sku, item.brand, item.shop, item.category))


def parse_history(line: str) -> tuple[str, tuple[Interaction, ...]]:
    """Parse `id:sku,ts,type;…`, newest first, into the user's id and history; ValueError names the fault."""
    user_id, separator, rest = line.rstrip("\r\n").partition(":")
    if not user_id or not separator:
        raise ValueError("expected id:sku,ts,type;…")
    interactions = []
    for part in filter(None, rest.split(";")):
        sku, ts, kind = part.split(",")
        if not 0 <= (time := int(ts)) <= MAX_TIMESTAMP:
            raise ValueError(f"the time {ts} is not in [0, {MAX_TIMESTAMP}]")
        interactions.append(Interaction(sku, time, ActionType(int(kind))))
    return user_id, tuple(interactions)


def format_history(user_id: str, history: tuple[Interaction, ...]) -> str:
    """Return the history as a line of histories.dat, without the newline. Inverse of `parse_history`."""
    return f"{user_id}:" + ";".join(f"{i.sku},{i.ts},{int(i.type)}" for i in history)
