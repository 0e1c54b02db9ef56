import pyarrow as pa

MATCHES = pa.list_(
    pa.struct(
        [
            ("evaluation_set", pa.string()),
            ("item", pa.string()),
            ("ngram", pa.string()),
            ("char_start", pa.int32()),
            ("char_end", pa.int32()),
            ("matched", pa.int32()),
            ("total", pa.int32()),
        ]
    )
)
