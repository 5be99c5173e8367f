// RUN: nybble-opt %s --split-input-file | filecheck %s

// CHECK:      func.func @same() {
// CHECK:      {{^}}// -----
func.func @same() {
  func.return
}

// -----

// A name is defined once in each part.
// CHECK:      func.func @same() {
func.func @same() {
  func.return
}
