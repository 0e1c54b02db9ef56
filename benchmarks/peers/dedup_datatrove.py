"""datatrove: its MinHash pipeline with its own settings (English words, 14 buckets of 8 hashes), one process.

It reports clusters alone, so all pairs in a cluster count as found.
"""

import contextlib
import os
import struct
import tempfile

import numpy as np
from dedup_common import SHINGLE_WORDS, measure, pairs_of_clusters


def find(texts: list[str]) -> np.ndarray:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashDedupCluster
    from datatrove.utils.logging import logger

    logger.remove()
    config = MinhashConfig(n_grams=SHINGLE_WORDS)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stderr(nowhere):
            documents = (Document(text=text, id=str(number)) for number, text in enumerate(texts))
            MinhashDedupSignature(f"{folder}/signatures", config).run(documents)
            for bucket in range(config.num_buckets):
                MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config).run(
                    rank=bucket, world_size=config.num_buckets
                )
            MinhashDedupCluster(
                f"{folder}/buckets", f"{folder}/removed", config=config, save_cluster_id=True
            ).run()
        with open(f"{folder}/removed/000000.clusters", "rb") as file:
            rows = np.array(list(struct.iter_unpack("<II", file.read())), np.int64).reshape(-1, 2)
    clusters = -1 - np.arange(len(texts))
    clusters[rows[:, 0]] = rows[:, 1]
    return pairs_of_clusters(clusters)


if __name__ == "__main__":
    measure(find, "datatrove", "spacy")
