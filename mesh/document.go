package mesh

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Document is one document as it was read. It is immutable.
type Document struct {
	ID DocumentID
	// Position is where it begins.
	Position Position
	// Hash is of what it says: comments, order of keys and layout do not
	// change it.
	Hash string

	// form is one of the forms, filled as far as it could be.
	form  any
	nodes map[string]*yaml.Node
	// lines of the file that it stands in.
	lines  []string
	faults Faults
	// excused are paths that are not faulted again: a key for them is there,
	// misspelt.
	excused []string
}

// newDocument decodes a document whose kind is known. Beside it are modules.
func newDocument(file string, lines []string, kind Kind, node *yaml.Node, modules map[string][]byte) *Document {
	d := &Document{
		Position: Position{file, node.Line, node.Column},
		form:     formOf[kind](),
		nodes:    map[string]*yaml.Node{},
		lines:    lines,
	}
	decoder{d}.value("", node, formValue(d.form), "")
	d.ID = DocumentID{kind, formName(d.form)}
	if form, ok := d.form.(*regoForm); ok {
		d.loadModules(form, modules)
	}
	content, err := json.Marshal(d.form)
	if err != nil {
		panic(err) // Forms hold nothing that cannot be marshalled.
	}
	sum := sha256.Sum256(content)
	d.Hash = hex.EncodeToString(sum[:])
	return d
}

// YAML returns the document as it was written, but for its layout. What is read
// from it has the same Hash.
func (d *Document) YAML() ([]byte, error) { return yaml.Marshal(d.nodes[""]) }

// fault notes a fault at the value at path, or at what is nearest around it.
func (d *Document) fault(path, message string) {
	if len(d.faults) < maxFaults && !d.faulted(path) {
		d.faults = append(d.faults, Fault{d.position(path), path, message})
	}
}

func (d *Document) faultAt(node *yaml.Node, path, message string) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, Fault{Position{d.Position.File, node.Line, node.Column}, path, message})
	}
}

// maxFaults bounds what is told of one document: nobody reads more, and each is
// compared with those before it.
const maxFaults = 1000

// faulted reports whether something is wrong with the value at path already:
// what follows from that is not worth a line.
func (d *Document) faulted(path string) bool {
	for _, fault := range d.faults {
		if within(path, fault.Path) {
			return true
		}
	}
	for _, excused := range d.excused {
		if within(path, excused) {
			return true
		}
	}
	return false
}

// within reports whether path is outer or inside of it.
func within(path, outer string) bool {
	after, ok := strings.CutPrefix(path, outer)
	return ok && outer != "" && (after == "" || after[0] == '.' || after[0] == '[')
}

// written reports whether there is a value at path.
func (d *Document) written(path string) bool { return d.nodes[path] != nil }

func (d *Document) position(path string) Position {
	for ; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		if node := d.nodes[path]; node != nil {
			return Position{d.Position.File, node.Line, node.Column}
		}
	}
	return d.Position
}

// locate returns the position of a line and column of the text at path; as near
// as can be told where YAML says the text differently than it is.
func (d *Document) locate(path string, line, column int) Position {
	start := d.position(path)
	node := d.nodes[path]
	if node == nil || line < 1 || column < 1 {
		return start
	}
	texts := strings.Split(node.Value, "\n")
	row := start.Line + line - 1
	if node.Style&yaml.LiteralStyle != 0 {
		row++
	}
	if line > len(texts) || row > len(d.lines) {
		return start
	}
	source, offset := d.lines[row-1], 0
	if row == start.Line {
		offset = min(start.Column-1, len(source))
	}
	i := strings.Index(source[offset:], texts[line-1])
	if i < 0 {
		return start
	}
	return Position{start.File, row, offset + i + column}
}

// describe names the document and where it is.
func (d *Document) describe() string { return fmt.Sprintf("%s (%s)", d.ID, d.Position) }
