"""The launches of one step: embed, layer after layer, and the head.

Knows which kernel reads and writes which tensor, and with which tiles; must not know requests,
pages or graphs. Every tensor stays where it is, so that launches can be recorded and replayed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.cache import KeyValueCache, PlainLayer
from node.engine.cuda import attention, products
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
        self, model: LlamaModel, cache: KeyValueCache, numbers: Tensor, tables: Tensor
    ) -> None:
        """`numbers` and `tables` are the device's side of `StepTable` and `PageTables`."""
        self._model = model
        self._config = config = model.config
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
        self._queries = self._zeros(TOKENS_MAX, queries)
        self._attended = self._zeros(TOKENS_MAX, queries)
        self._gated = self._zeros(TOKENS_MAX, config.intermediate_size)
        self._partial = self._zeros(PARTS_MAX, queries, dtype=torch.float32)
        self._largest = self._zeros(PARTS_MAX, config.heads, dtype=torch.float32)
        self._total = self._zeros(PARTS_MAX, config.heads, dtype=torch.float32)
        self._blocks = -(-config.vocabulary_size // HEAD_COLUMNS)
        self.logits = self._zeros(LOGITS_MAX, config.vocabulary_size, dtype=torch.float32)
        self._best = self._zeros(LOGITS_MAX, self._blocks, dtype=torch.float32)
        self._best_token = self._zeros(LOGITS_MAX, self._blocks, dtype=torch.int32)
        self.chosen = self._zeros(LOGITS_MAX, 1, dtype=torch.int32)

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

    def body(self, shape: StepShape) -> None:
        """Embed and all layers: keys and values are in the cache then."""
        config, tiles = self._config, self._tiles(shape.tokens)
        tokens, hidden = shape.tokens, config.hidden_size
        products.embed[(tokens,)](
            self._numbers, self._embedding, self._hidden, hidden, BLOCK=next_power(hidden)
        )
        for layer in self._layers:
            self._project_heads(layer, tokens, tiles)
            self._attend(layer, shape)
            self._project_add(self._attended, layer.output, tokens, tiles)
            self._project_gate(layer, tokens, tiles)
            self._project_add(self._gated, layer.down, tokens, tiles)

    def head(self, wanted: int, first: int = 0) -> None:
        """Logits of the wanted rows from `first` on, `wanted` of them, and the largest of each."""
        config, tiles = self._config, self._tiles(wanted)
        grid = (self._blocks, -(-wanted // tiles.tokens))
        products.project_vocabulary[grid](
            self._numbers[first:],
            self._hidden,
            self._model.final_norm,
            self._head,
            self.logits,
            self._best,
            self._best_token,
            wanted,
            config.hidden_size,
            config.vocabulary_size,
            self._blocks,
            config.norm_epsilon,
            BM=tiles.tokens,
            BN=HEAD_COLUMNS,
            BK=tiles.depth(config.hidden_size),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
        products.choose_best[(wanted,)](
            self._best,
            self._best_token,
            self.chosen,
            self._blocks,
            BLOCKS=next_power(self._blocks),
        )

    def _project_heads(self, layer: _Layer, tokens: int, tiles: Tiles) -> None:
        config = self._config
        half = config.head_dimension // 2
        columns = tiles.columns(half)
        heads = config.heads + 2 * config.kv_heads
        grid = (heads * (half // columns), -(-tokens // tiles.tokens))
        products.project_heads[grid](
            self._numbers,
            self._hidden,
            layer.weights.attention_norm,
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
            HEADS=config.heads,
            KV_HEADS=config.kv_heads,
            DIMENSION=config.head_dimension,
            BM=tiles.tokens,
            BN=columns,
            BK=tiles.depth(config.hidden_size),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
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
            num_stages=tiles.stages if config.head_dimension <= 64 else 2,
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
                num_warps=1,
            )

    def _project_gate(self, layer: _Layer, tokens: int, tiles: Tiles) -> None:
        config = self._config
        columns = tiles.columns(config.intermediate_size)
        grid = (config.intermediate_size // columns, -(-tokens // tiles.tokens))
        products.project_gate[grid](
            self._hidden,
            layer.weights.feed_forward_norm,
            layer.gate_up,
            self._gated,
            tokens,
            config.hidden_size,
            config.intermediate_size,
            config.norm_epsilon,
            BM=tiles.tokens,
            BN=columns,
            BK=tiles.depth(config.hidden_size),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )

    def _project_add(self, source: Tensor, weight: Tensor, tokens: int, tiles: Tiles) -> None:
        out, width = weight.shape
        columns = tiles.columns(out)
        grid = (out // columns, -(-tokens // tiles.tokens))
        products.project_add[grid](
            source,
            weight,
            self._hidden,
            tokens,
            width,
            out,
            BM=tiles.tokens,
            BN=columns,
            BK=tiles.depth(width),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
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
