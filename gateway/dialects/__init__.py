"""Wire formats, pure: bytes and dicts in, bytes and dicts out, no IO."""
