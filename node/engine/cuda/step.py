"""The launches of one step: embed, layer after layer, and the head.

Knows which kernel reads and writes which tensor, and with which tiles; must not know requests,
pages or graphs. Every tensor stays where it is, so that launches can be recorded and replayed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.cache import KeyValueCache, PlainLayer
from node.engine.cuda import attention, products
from node.engine.cuda.columns import PART
from node.engine.cuda.layout import LOGITS_MAX, TOKENS_MAX, StepShape
from node.engine.cuda.reasons import CudaUnfit
from node.engine.cuda.shape import HEAD_COLUMNS, PARTS_MAX
from node.engine.cuda.tiles import Tiles, next_power, splits_for, tiles_for
from node.engine.model import LayerWeights, LlamaModel
from node.engine.weights.matrix import DenseMatrix, Matrix


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's tensors."""

    weights: LayerWeights
    query_key_value: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor
    keys: Tensor
    values: Tensor


class Step:
    """Computes what the tables name, into tensors that stay."""

    def __init__(
        self,
        model: LlamaModel,
        cache: KeyValueCache,
        numbers: Tensor,
        tables: Tensor,
        *,
        overlaps: bool = False,
    ) -> None:
        """`numbers` and `tables` are the device's side of `StepTable` and `PageTables`.

        With `overlaps` kernels start before those they follow have ended: on Hopper and later.
        """
        self._model = model
        self._config = config = model.config
        self._may_overlap = overlaps
        self._overlaps = False
        self._numbers = numbers
        self._tables = tables
        self._layers = [_layer(layer, cache, index) for index, layer in enumerate(model.layers)]
        self._capacity = self._layers[0].keys.shape[1]
        half = config.head_dimension // 2
        count = torch.arange(model.rotary.positions, device=model.device)
        cosines, sines = model.rotary.at(count)
        # One half of each table: the other holds the same numbers, or their opposites.
        self._cosines = cosines[:, 0, half:].contiguous()
        self._sines = sines[:, 0, half:].contiguous()
        self._embedding, self._head = _dense(model.embedding), _dense(model.head)
        queries = config.heads * config.head_dimension
        self._hidden = self._zeros(TOKENS_MAX, config.hidden_size)
        self._scaled = self._zeros(TOKENS_MAX, config.hidden_size)
        self._parts = config.hidden_size // PART
        self._squares = self._zeros(TOKENS_MAX, self._parts, dtype=torch.float32)
        self._queries = self._zeros(TOKENS_MAX, queries)
        self._attended = self._zeros(TOKENS_MAX, queries)
        self._gated = self._zeros(TOKENS_MAX, config.intermediate_size)
        self._partial = self._zeros(PARTS_MAX, queries, dtype=torch.float32)
        self._largest = self._zeros(PARTS_MAX, config.heads, dtype=torch.float32)
        self._total = self._zeros(PARTS_MAX, config.heads, dtype=torch.float32)
        self.logits = self._zeros(LOGITS_MAX, config.vocabulary_size, dtype=torch.float32)
        most = -(-config.vocabulary_size // min(HEAD_COLUMNS))
        self._best = self._zeros(LOGITS_MAX, most, dtype=torch.float32)
        self._best_token = self._zeros(LOGITS_MAX, most, dtype=torch.int32)
        self.chosen = torch.zeros(LOGITS_MAX, dtype=torch.int32, device=model.device)

    def _zeros(self, rows: int, columns: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(
            (rows, columns), dtype=dtype or self._model.dtype, device=self._model.device
        )

    @property
    def span(self) -> int:
        """Tokens of a block of attention, where a sequence has many."""
        return max(1, self._tiles(TOKENS_MAX).rows // self._group_padded)

    @property
    def _group_padded(self) -> int:
        return next_power(self._config.heads // self._config.kv_heads)

    def _tiles(self, tokens: int) -> Tiles:
        return tiles_for(tokens, self._config, self._model.dtype)

    def _choose_tiles(self, tokens: int) -> Tiles:
        """Kernels overlap in steps of one token only: longer ones lose by it."""
        tiles = self._tiles(tokens)
        self._overlaps = self._may_overlap and tiles.is_few
        return tiles

    def body(self, shape: StepShape) -> None:
        """Embed and all layers: keys and values are in the cache then."""
        config, tiles = self._config, self._choose_tiles(shape.tokens)
        tokens, hidden = shape.tokens, config.hidden_size
        products.embed[(tokens,)](
            self._numbers,
            self._embedding,
            self._layers[0].weights.attention_norm,
            self._hidden,
            self._scaled,
            self._squares,
            hidden,
            self._parts,
            BLOCK=next_power(hidden),
            OVERLAPS=self._overlaps,
            launch_pdl=self._overlaps,
        )
        norms = [layer.weights.attention_norm for layer in self._layers[1:]]
        for layer, after in zip(self._layers, [*norms, self._model.final_norm], strict=True):
            self._project_heads(layer, tokens, tiles)
            self._attend(layer, shape)
            between = layer.weights.feed_forward_norm
            self._project_add((self._attended, layer.output, between), tokens, tiles)
            self._project_gate(layer, tokens, tiles)
            self._project_add((self._gated, layer.down, after), tokens, tiles)

    def head(self, wanted: int, first: int = 0) -> None:
        """Logits of the wanted rows from `first` on, `wanted` of them, and the largest of each."""
        config, tiles = self._config, self._choose_tiles(wanted)
        columns = HEAD_COLUMNS[0 if tiles.is_few else 1]
        blocks = -(-config.vocabulary_size // columns)
        products.project_vocabulary[blocks, -(-wanted // tiles.tokens)](
            self._numbers[first:],
            self._scaled,
            self._squares,
            self._head,
            self.logits,
            self._best,
            self._best_token,
            wanted,
            config.hidden_size,
            config.vocabulary_size,
            blocks,
            config.norm_epsilon,
            self._parts,
            PARTS=next_power(self._parts),
            BM=tiles.tokens,
            BN=columns,
            BK=tiles.depth(config.hidden_size),
            **self._how(tiles),
        )
        products.choose_best[(wanted,)](
            self._best,
            self._best_token,
            self.chosen,
            blocks,
            BLOCKS=next_power(blocks),
            OVERLAPS=self._overlaps,
            launch_pdl=self._overlaps,
        )

    def _how(self, tiles: Tiles) -> dict[str, int | bool]:
        """What all products are launched with."""
        return {
            "FEW": tiles.is_few,
            "OVERLAPS": self._overlaps,
            "launch_pdl": self._overlaps,
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
        }

    def _project_heads(self, layer: _Layer, tokens: int, tiles: Tiles) -> None:
        config = self._config
        half = config.head_dimension // 2
        columns = tiles.pairs(half)
        heads = config.heads + 2 * config.kv_heads
        grid = (heads * (half // columns), -(-tokens // tiles.tokens))
        products.project_heads[grid](
            self._numbers,
            self._scaled,
            self._squares,
            layer.query_key_value,
            self._cosines,
            self._sines,
            self._queries,
            layer.keys,
            layer.values,
            tokens,
            config.hidden_size,
            self._capacity,
            config.norm_epsilon,
            self._parts,
            HEADS=config.heads,
            KV_HEADS=config.kv_heads,
            DIMENSION=config.head_dimension,
            PARTS=next_power(self._parts),
            BM=tiles.tokens,
            BN=columns,
            BK=tiles.depth(config.hidden_size),
            **self._how(tiles),
        )

    def _attend(self, layer: _Layer, shape: StepShape) -> None:
        config = self._config
        splits = splits_for(shape, config.kv_heads)
        tiles = self._tiles(TOKENS_MAX if shape.span > 1 else 1)
        grid = (shape.blocks, config.kv_heads, splits)
        attention.attend[grid](
            self._numbers,
            self._tables,
            self._queries,
            layer.keys,
            layer.values,
            self._attended,
            self._partial,
            self._largest,
            self._total,
            shape.tokens,
            self._capacity,
            self._tables.shape[1],
            config.head_dimension**-0.5,
            HEADS=config.heads,
            DIMENSION=config.head_dimension,
            GROUP=config.heads // config.kv_heads,
            GROUP_PADDED=self._group_padded,
            ROWS=max(tiles.rows, self._group_padded),
            BN=tiles.keys,
            SPLITS=splits,
            num_warps=4,
            num_stages=max(2, tiles.stages) if config.head_dimension <= 64 else 2,
            OVERLAPS=self._overlaps,
            launch_pdl=self._overlaps,
        )
        if splits > 1:
            attention.combine[(shape.tokens, config.heads)](
                self._partial,
                self._largest,
                self._total,
                self._attended,
                shape.tokens,
                HEADS=config.heads,
                DIMENSION=config.head_dimension,
                SPLITS=splits,
                OVERLAPS=self._overlaps,
                launch_pdl=self._overlaps,
                num_warps=1,
            )

    def _project_gate(self, layer: _Layer, tokens: int, tiles: Tiles) -> None:
        config = self._config
        columns = tiles.pairs(config.intermediate_size)
        grid = (config.intermediate_size // columns, -(-tokens // tiles.tokens))
        products.project_gate[grid](
            self._scaled,
            self._squares,
            layer.gate_up,
            self._gated,
            tokens,
            config.hidden_size,
            config.intermediate_size,
            config.norm_epsilon,
            self._parts,
            PARTS=next_power(self._parts),
            BM=tiles.tokens,
            BN=columns,
            BK=tiles.depth(config.hidden_size),
            **self._how(tiles),
        )

    def _project_add(self, parts: tuple[Tensor, Tensor, Tensor], tokens: int, tiles: Tiles) -> None:
        """`parts`: what is multiplied, the weight, and that of the norm that comes next."""
        source, weight, norm = parts
        out, width = weight.shape
        columns = tiles.columns(out)
        grid = (out // columns, -(-tokens // tiles.tokens))
        products.project_add[grid](
            source,
            weight,
            norm,
            self._hidden,
            self._scaled,
            self._squares,
            tokens,
            width,
            out,
            self._parts,
            BM=tiles.tokens,
            BN=columns,
            BK=tiles.depth(width),
            **self._how(tiles),
        )


def _layer(weights: LayerWeights, cache: KeyValueCache, index: int) -> _Layer:
    stored = cache.layer(index)
    if not isinstance(stored, PlainLayer):
        raise CudaUnfit("keys and values are kept in int8")
    return _Layer(
        weights,
        _dense(weights.query_key_value),
        _dense(weights.output),
        _dense(weights.gate_up),
        _dense(weights.down),
        stored.keys.slots,
        stored.values.slots,
    )


def _dense(matrix: Matrix) -> Tensor:
    if not isinstance(matrix, DenseMatrix):
        raise CudaUnfit("weights are packed")
    return matrix.weight
