"""Creates the users of Milvus that recall and the seed sign in as, each with a role of its own.

Milvus starts with the user root alone, who may do anything. A role may do only what is granted to it.
"""

from collections.abc import Mapping

from pymilvus import MilvusClient

from ecrs.settings import VectorSettings
from ecrs.storage.milvus_vectors import milvus_address, token
from ecrs_seed.milvus import UNAVAILABLE, signed_in

ANY = "*"
"""Privileges are for all collections: a role cannot be given those whose name begins with a prefix."""

PRIVILEGES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "recall": {
        "Collection": ("Search", "Query", "Upsert", "Insert", "Delete"),
        "Global": ("DescribeCollection",),
    },
    "seed": {
        "Collection": (
            *("Insert", "Upsert", "Delete", "Flush", "GetFlushState", "CreateIndex", "IndexDetail"),
            *("Load", "GetLoadState", "GetLoadingProgress", "Search", "Query"),
        ),
        "Global": (
            *("CreateCollection", "DropCollection", "DescribeCollection", "ShowCollections"),
            *("CreateAlias", "DropAlias"),  # CreateAlias is also the privilege of moving an alias
        ),
    },
}
"""Users, and what the role of the same name may do, by the kind of object that Milvus grants it for."""


class MilvusUsersSettings(VectorSettings):
    """Milvus, whose user root creates the others, and their passwords."""

    milvus_recall_password: str
    milvus_seed_password: str


def create_users(settings: MilvusUsersSettings, root: MilvusClient) -> list[str]:
    """Create the users of PRIVILEGES with their roles; return the users that were missing or changed.

    A user that has another password than the configured one is created again. `root` is signed in as root.
    """
    passwords = {"recall": settings.milvus_recall_password, "seed": settings.milvus_seed_password}
    return [user for user in PRIVILEGES if _create(user, passwords[user], settings, root)]


def _create(user: str, password: str, settings: VectorSettings, root: MilvusClient) -> bool:
    """Create a user and its role; return False if nothing was missing."""
    if user not in root.list_roles():
        root.create_role(user)
    granted = {(grant["object_type"], grant["privilege"]) for grant in root.describe_role(user)["privileges"]}
    wanted = {(kind, name) for kind, names in PRIVILEGES[user].items() for name in names}
    for kind, name in sorted(wanted - granted):
        root.grant_privilege(user, kind, name, ANY)
    for kind, name in sorted(granted - wanted):
        root.revoke_privilege(user, kind, name, ANY)
    if user in root.list_users():
        try:
            signed_in(milvus_address(settings), token(user, password)).close()
        except UNAVAILABLE:
            root.drop_user(user)
        else:
            return granted != wanted
    root.create_user(user, password)
    root.grant_role(user, user)
    return True
