package consensus

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// bbolt's pages, as far as [checkStructure] reads them.
const (
	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketLeaf   = 0x01 // flag of an element whose value is a bucket
	elementSize  = 16
	bucketHeader = 16
	firstPage    = 2 // behind the meta pages
	manyFree     = 0xFFFF
)

// checkStructure reads the pages of a bbolt file, all counts, sizes and references in
// them, with memory of its own that no count in the file can make large. What is wrong
// with them may end a process that opens the file in earnest: without memory, or in an
// endless recursion, which nothing recovers from.
func checkStructure(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	meta, err := newestMeta(f)
	if err != nil {
		return err
	}
	s := &structure{
		file: f, pageSize: uint64(binary.NativeEndian.Uint32(meta[8:])), pages: binary.NativeEndian.Uint64(meta[40:]),
		seen: make(map[uint64]bool),
	}
	if err := s.tree(binary.NativeEndian.Uint64(meta[16:])); err != nil {
		return err
	}
	return s.freelist(binary.NativeEndian.Uint64(meta[32:]))
}

// structure is a bbolt file under check.
type structure struct {
	file            io.ReaderAt
	pageSize, pages uint64
	seen            map[uint64]bool
}

func damagedPage(id uint64, format string, args ...any) error {
	return fmt.Errorf("%w: page %d %s", ErrDamaged, id, fmt.Sprintf(format, args...))
}

// page reads a page with those that it flows over to, each once.
func (s *structure) page(id uint64) (page []byte, flags, count uint16, err error) {
	var head [pageHeader]byte
	if id < firstPage || id >= s.pages {
		return nil, 0, 0, damagedPage(id, "is none of the %d that there are", s.pages)
	}
	if _, err := s.file.ReadAt(head[:], int64(id*s.pageSize)); err != nil {
		return nil, 0, 0, damagedPage(id, "cannot be read: %v", err)
	}
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if overflow >= s.pages-id {
		return nil, 0, 0, damagedPage(id, "flows over the end of the file")
	}
	for i := id; i <= id+overflow; i++ {
		if s.seen[i] {
			return nil, 0, 0, damagedPage(i, "is used twice")
		}
		s.seen[i] = true
	}
	page = make([]byte, (overflow+1)*s.pageSize) // not more than the file has
	if _, err := s.file.ReadAt(page, int64(id*s.pageSize)); err != nil {
		return nil, 0, 0, damagedPage(id, "cannot be read: %v", err)
	}
	return page, binary.NativeEndian.Uint16(head[8:]), binary.NativeEndian.Uint16(head[10:]), nil
}

// tree checks the pages of a bucket.
func (s *structure) tree(root uint64) error {
	page, flags, count, err := s.page(root)
	if err != nil {
		return err
	}
	switch flags {
	case branchPage:
		for i := range uint64(count) {
			at := pageHeader + i*elementSize
			if at+elementSize > uint64(len(page)) {
				return damagedPage(root, "has room for less than %d elements", count)
			}
			if err := s.tree(binary.NativeEndian.Uint64(page[at+8:])); err != nil {
				return err
			}
		}
		return nil
	case leafPage:
		return s.leaf(root, page, count)
	}
	return damagedPage(root, "is of an unknown kind, %#x", flags)
}

// leaf checks the elements of a leaf page, or of a bucket within one.
func (s *structure) leaf(id uint64, page []byte, count uint16) error {
	for i := range uint64(count) {
		at := pageHeader + i*elementSize
		if at+elementSize > uint64(len(page)) {
			return damagedPage(id, "has room for less than %d elements", count)
		}
		e := page[at:]
		pos, keySize, valueSize := at+uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
		if pos+keySize+valueSize > uint64(len(page)) {
			return damagedPage(id, "has an element behind its end")
		}
		if binary.NativeEndian.Uint32(e) != bucketLeaf {
			continue
		}
		value := page[pos+keySize : pos+keySize+valueSize]
		if len(value) < bucketHeader {
			return damagedPage(id, "has a bucket of %d bytes", len(value))
		}
		if root := binary.NativeEndian.Uint64(value); root != 0 {
			if err := s.tree(root); err != nil {
				return err
			}
			continue
		}
		inline := value[bucketHeader:]
		if len(inline) < pageHeader {
			return damagedPage(id, "has a bucket of %d bytes", len(value))
		}
		if err := s.leaf(id, inline, binary.NativeEndian.Uint16(inline[10:])); err != nil {
			return err
		}
	}
	return nil
}

// freelist checks that what is said to be free could be.
func (s *structure) freelist(id uint64) error {
	page, flags, few, err := s.page(id)
	if err != nil {
		return err
	}
	if flags != freelistPage {
		return damagedPage(id, "should be the list of free ones and is of the kind %#x", flags)
	}
	list, count := page[pageHeader:], uint64(few)
	if few == manyFree {
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if count > uint64(len(list))/8 {
		return damagedPage(id, "has room for less than %d free ones", count)
	}
	for i := range count {
		if free := binary.NativeEndian.Uint64(list[8*i:]); free < firstPage || free >= s.pages || s.seen[free] {
			return damagedPage(free, "is said to be free and is not")
		}
	}
	return nil
}
