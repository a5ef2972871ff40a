"""Model bundles. A bundle is one trained version: its models and tables, with a hash of each file.

BUNDLES/20261124_041530_1a2b3c4d/
    manifest.json                 version, data set, sha256 and size of every other file
    manifest.sig                  the signature of manifest.json (ecrs.bundle.trust)
    user_tower/ item_tower/ ranker/   Paddle Serving's layout and signature.json
    vocabulary/*.txt              one value per line
    users.dat products.dat histories.dat aggregates.dat product_vectors.txt
    recall/*.npy                  the retrieval channels' tables (ecrs.recall.tables)
    ranking/item_statistics.npy quantiles.json   the ranker's tables (ecrs.rank.tables)
    golden.json                   inputs and outputs of the models at training
    metrics.json
    weights/*.npz answers.npz     read by a later training and by the evaluation, not by serving
BUNDLES/current -> 20261124_041530_1a2b3c4d

A bundle may come from anywhere, so it is data and never code: `Bundle.open` accepts only a directory that is
exactly what a trusted key has signed, and whatever is read from it is checked where it is read.
"""

from ecrs.bundle.errors import BundleError, UntrustedBundle
from ecrs.bundle.manifest import FILES, FORMAT, MANIFEST, MODELS, FileEntry, Manifest, new_version
from ecrs.bundle.opened import Bundle
from ecrs.bundle.writing import CURRENT, make_current, seal, write_fault, writing

__all__ = [
    "CURRENT",
    "FILES",
    "FORMAT",
    "MANIFEST",
    "MODELS",
    "Bundle",
    "BundleError",
    "FileEntry",
    "Manifest",
    "UntrustedBundle",
    "make_current",
    "new_version",
    "seal",
    "write_fault",
    "writing",
]
