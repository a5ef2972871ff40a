"""What a bundle's models must be: their signatures, which follow from its vocabularies, and golden rows."""

import numpy as np

from ecrs.bundle import Bundle, BundleError, Manifest
from ecrs.bundle.opened import GoldenRows
from ecrs.features.encoding import ITEM_TOWER_COLUMNS, USER_TOWER_COLUMNS, Encoder
from ecrs.features.quantiles import RANKER_COLUMNS, ranker_cardinality
from ecrs.serving.signature import ModelSignature

FEED = "ids"


def expected_signature(name: str, manifest: Manifest, encoder: Encoder) -> ModelSignature:
    """Return the signature that model `name` of a bundle has.

    `encoder` has the bundle's vocabularies; those of items are enough for the item tower.
    """
    if name == "ranker":
        columns, cardinality, fetch, width = RANKER_COLUMNS, ranker_cardinality(encoder), "score", 1
    else:
        columns = USER_TOWER_COLUMNS if name == "user_tower" else ITEM_TOWER_COLUMNS
        cardinality, fetch, width = encoder.cardinality(columns), "embedding", manifest.dim
    return ModelSignature(name, manifest.version, FEED, fetch, columns, cardinality, width)


def load_signature(bundle: Bundle, name: str) -> ModelSignature:
    """Read the signature of model `name`, and check it and the model's golden rows.

    Raises BundleError if the signature is not the one that follows from the bundle's vocabularies, or if the
    golden rows do not match it.
    """
    path = bundle.path / name / "signature.json"
    try:
        signature = ModelSignature.load(bundle.path / name)
    except (OSError, ValueError) as error:
        raise BundleError(str(error)) from error
    encoder = bundle.item_encoder if name == "item_tower" else bundle.encoder
    expected = expected_signature(name, bundle.manifest, encoder)
    for field, value in vars(expected).items():
        if getattr(signature, field) != value:
            raise BundleError(f"{path}: its {field} is not that of the bundle's manifest and vocabularies")
    rows: GoldenRows = bundle.golden[name]  # type: ignore[literal-required]
    try:
        ids = signature.check(np.array(rows["ids"], dtype=np.int64))
        outputs = np.array(rows["outputs"], dtype=np.float32)
        if outputs.shape != (len(ids), signature.width) or not np.isfinite(outputs).all():
            raise ValueError(f"the outputs are not {len(ids)} rows of {signature.width} numbers")
    except (ValueError, OverflowError) as error:
        raise BundleError(f"{bundle.path / 'golden.json'}: {name}: {error}") from error
    return signature
