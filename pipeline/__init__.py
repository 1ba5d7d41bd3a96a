"""Linear semantics in GANs: generators, feature stores, extractors, metrics (the library)."""
