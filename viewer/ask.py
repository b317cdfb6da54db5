"""A field of the controls asked for in a dialog, so that menus and keys reach it as the mouse does."""

from __future__ import annotations

from PyQt6.QtWidgets import QComboBox, QDoubleSpinBox, QInputDialog, QSpinBox, QWidget


def ask_for(field: QWidget, title: str, parent: QWidget) -> QInputDialog:
    """Open a dialog that changes ``field``, a list or a number, as if it were changed by hand; does not wait."""
    dialog = QInputDialog(parent)
    dialog.setWindowTitle(title)
    label = field.toolTip()
    if isinstance(field, QComboBox):
        dialog.setComboBoxItems([field.itemText(index) for index in range(field.count())])
        dialog.setTextValue(field.currentText())
        dialog.textValueSelected.connect(lambda text: _choose(field, text))
    elif isinstance(field, QDoubleSpinBox):
        dialog.setInputMode(QInputDialog.InputMode.DoubleInput)
        dialog.setDoubleDecimals(field.decimals())
        dialog.setDoubleRange(field.minimum(), field.maximum())
        dialog.setDoubleStep(field.singleStep())
        dialog.setDoubleValue(field.value())
        dialog.doubleValueSelected.connect(field.setValue)
        label += f" ({field.minimum():g} to {field.maximum():g})"
    elif isinstance(field, QSpinBox):
        dialog.setInputMode(QInputDialog.InputMode.IntInput)
        dialog.setIntRange(field.minimum(), field.maximum())
        dialog.setIntStep(field.singleStep())
        dialog.setIntValue(field.value())
        dialog.intValueSelected.connect(field.setValue)
        special = f"; 0: {field.specialValueText()}" if field.specialValueText() else ""
        label += f" ({field.minimum():,} to {field.maximum():,}{special})"
    dialog.setLabelText(label)
    dialog.finished.connect(dialog.deleteLater)
    dialog.open()
    return dialog


def _choose(field: QComboBox, text: str) -> None:
    index = field.findText(text)
    if index >= 0:
        field.setCurrentIndex(index)
        field.activated.emit(index)
