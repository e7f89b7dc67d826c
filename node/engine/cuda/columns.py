"""What a step tells the GPU of each token, as numbers in one row: names of the columns.

Knows the layout only. Rows are tokens; blocks of tokens and wanted rows of logits, of which there
are never more than tokens, are numbered by rows of the same table.
"""

TOKEN = 0
POSITION = 1
SLOT = 2
"""Where keys and values go: page times page size plus offset; -1 for nowhere."""
BLOCK_FIRST = 3
"""The first token of a block of attention."""
BLOCK_COUNT = 4
"""How many tokens the block has; 0 for a block that is not there."""
BLOCK_TABLE = 5
"""The row of the block tables that all tokens of the block look into."""
LOGIT_ROW = 6
"""The token after which it is wanted what comes next."""
PART = 16
"""Columns of a row of which a sum of squares is noted."""
COLUMNS = 8
"""A power of two."""
