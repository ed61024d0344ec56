"""The proof: every registered op against float64 (``fastgan verify``), and every kernel compiled
for GPUs that need not be there (``--aot``).
"""
